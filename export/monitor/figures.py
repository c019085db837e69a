"""Figures of what was served, by model, version, label and segment."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shortlist.export.evaluation.intervals import share_interval
from shortlist.export.evaluation.metrics import Interval
from shortlist.export.evaluation.reference import buckets
from shortlist.export.monitor.collect import HOUR, Collector, Group, GroupKey, Lists
from shortlist.export.monitor.drift import LEAST, stability_index
from shortlist.export.monitor.versions import VersionFacts
from shortlist.serving.repository.version import Buckets, DriftReference

__all__ = ["EXPORT", "FIRST", "REFERENCE", "Drift", "Figures", "Period", "Served", "served"]

EXPORT: Final = "export"  # the held-out queries, in the manifest
REFERENCE: Final = "reference"  # a log
FIRST: Final = "first lists"

_MOST_REFERENCE = 1000  # lists of a version that later ones are compared with
_DAY = 24  # hours
_FEW_HOURS = 72  # a longer time is shown by day


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of some lists; those that cannot be known are `None`.

    Numbers are those in the log. Rates and shares weigh a list by the inverse of its log's sampling
    rate.

    Attributes:
        lists: Lists in the log, one per user and request.
        impressions: Candidates in them.
        users: Users who got them.
        interactions: Interactions within the window after a list, each after its latest one.
        hit_rate: Share of these interactions whose candidate is in the top k of the list.
        interval: 95% interval of the hit rate, by resampling users.
        click_rate: Share of the impressions that their user chose, of lists whose window passed.
        unknown_users: Share of the lists for a user id that training never met.
        unknown_history: Share of the events in histories whose candidate the version lacks.
        empty: Share of the lists without a candidate.
        coverage: Share of the version's corpus that was shown.
    """

    lists: int
    impressions: int
    users: int
    interactions: int | None
    hit_rate: float | None
    interval: Interval | None
    click_rate: float | None
    unknown_users: float | None
    unknown_history: float | None
    empty: float
    coverage: float | None


@dataclass(frozen=True, kw_only=True)
class Period:
    """A part of the time.

    Attributes:
        start: Its beginning in epoch seconds.
        lists: Lists.
        interactions: Interactions that follow them.
        hit_rate: Share of these in the top k; `None` without interactions.
    """

    start: int
    lists: int
    interactions: int
    hit_rate: float | None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Population stability indexes of a version; `None` with too few lists.

    Attributes:
        scores: Of the scores of the first candidates.
        histories: Of the numbers of events in the requests.
        scores_from: What the scores are compared with: `EXPORT`, `REFERENCE` or `FIRST`; `None`
            if the reference log has no lists of the version.
        histories_from: What the histories are compared with.
        unknown_users: Share of unknown users in the held-out queries of the export.
    """

    scores: float | None
    histories: float | None
    scores_from: str | None
    histories_from: str | None
    unknown_users: float | None = None


@dataclass(frozen=True, kw_only=True)
class Served:
    """What one version of a model served under one label.

    Attributes:
        model: Model name.
        version: Version; `None` if the log does not say.
        label: Version label of the requests; `None` without one.
        first: Time of the first list.
        last: Time of the last list.
        age: Seconds from the version's export to its last list; `None` if unknown.
        drift: Drift of the version, under all labels.
        figures: Figures of all lists.
        segments: Figures by segment, the largest first.
        periods: Hours or days with lists, in order.
    """

    model: str
    version: int | None
    label: str | None
    first: float
    last: float
    age: float | None
    drift: Drift
    figures: Figures
    segments: Mapping[str, Figures]
    periods: Sequence[Period]


def served(
    collector: Collector,
    *,
    k: int,
    versions: Mapping[tuple[str, int | None], VersionFacts],
    reference: Mapping[tuple[str, int | None], Lists] | None,
) -> list[Served]:
    """Return the figures by model, version and label.

    Args:
        collector: Counts.
        k: Cut-off of the hit rate.
        versions: What the repository says about versions.
        reference: Lists of earlier logs, by model and version; `None` for the references in the
            manifests, or the first lists of versions without one.
    """
    parts: dict[tuple[str, int | None, str | None], list[GroupKey]] = defaultdict(list)
    for key in collector.groups:
        parts[key[:3]].append(key)
    order = sorted(parts, key=lambda part: (part[0], part[1] or 0, part[2] or ""))
    hours = [hour for _, group in collector.groups.values() for hour in group.hours]
    step = HOUR * (_DAY if hours and max(hours) - min(hours) > _FEW_HOURS else 1)
    result = []
    for model, version, label in order:
        keys = sorted(parts[model, version, label], key=lambda key: -collector.groups[key][1].lists)
        facts = versions.get((model, version), VersionFacts())
        total = _merged(collector, keys)
        result.append(
            Served(
                model=model,
                version=version,
                label=label,
                first=total.first,
                last=total.last,
                age=None if facts.created is None else max(total.last - facts.created, 0.0),
                drift=_drift(
                    collector.versions[model, version],
                    facts.reference or DriftReference(),
                    None if reference is None else reference.get((model, version), Lists()),
                ),
                figures=_figures(collector, keys, k, facts.candidates),
                segments={
                    key.segment: _figures(collector, [key], k, facts.candidates)
                    for key in keys
                    if key.segment is not None
                },
                periods=_periods(collector, keys, total, k, step),
            )
        )
    return result


def _merged(collector: Collector, keys: Sequence[GroupKey]) -> Group:
    total = Group()
    for key in keys:
        total.merge(collector.groups[key][1])
    return total


def _members(collector: Collector, keys: Sequence[GroupKey]) -> npt.NDArray[np.intp]:
    """Return the places of the interactions that follow lists of some groups."""
    return np.flatnonzero(
        np.isin(collector.list_groups, [collector.groups[key][0] for key in keys])
    )


def _figures(collector: Collector, keys: Sequence[GroupKey], k: int, corpus: int | None) -> Figures:
    total = _merged(collector, keys)
    interactions = hit_rate = interval = click_rate = None
    if collector.outcomes is not None:
        places = _members(collector, keys)
        hits = _hits(collector, places, k)
        interactions = len(places)
        if interactions:
            weights = collector.list_weights[places]
            hit_rate = float(np.average(hits, weights=weights))
            interval = share_interval(collector.outcomes.owners[places], hits, weights=weights)
        if total.ripe:
            click_rate = _clicks(collector, places) / total.ripe
    return Figures(
        lists=total.lists,
        impressions=total.impressions,
        users=len(total.users),
        interactions=interactions,
        hit_rate=hit_rate,
        interval=interval,
        click_rate=click_rate,
        unknown_users=_share(total.unknown, total.told),
        unknown_history=_share(total.unknown_events, total.events),
        empty=total.empty / total.shown,
        coverage=_share(len(total.candidates), corpus or 0),
    )


def _share(part: float, total: float) -> float | None:
    return part / total if total else None


def _hits(collector: Collector, places: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.bool_]:
    ranks = collector.ranks[places]
    return (ranks >= 0) & (ranks < k)


def _clicks(collector: Collector, places: npt.NDArray[np.intp]) -> float:
    """Return the number of impressions that were chosen; one chosen twice counts once."""
    assert collector.outcomes is not None
    places = places[
        (collector.ranks[places] >= 0) & (collector.list_times[places] <= collector.ripe_until)
    ]
    chosen = np.stack(
        [
            collector.outcomes.owners[places].astype(np.float64),
            collector.list_times[places],
            collector.outcomes.candidates[places].astype(np.float64),
        ]
    )
    _, first = np.unique(chosen, axis=1, return_index=True)
    return float(collector.list_weights[places][first].sum())


def _periods(
    collector: Collector, keys: Sequence[GroupKey], total: Group, k: int, step: int
) -> list[Period]:
    places = _members(collector, keys)
    own = (collector.list_times[places] // step).astype(np.int64)
    hits, weights = _hits(collector, places, k), collector.list_weights[places]
    lists: dict[int, int] = defaultdict(int)
    for hour, count in total.hours.items():
        lists[hour * HOUR // step] += count
    return [
        Period(
            start=number * step,
            lists=lists[number],
            interactions=int((own == number).sum()),
            hit_rate=float(np.average(hits[own == number], weights=weights[own == number]))
            if (own == number).any()
            else None,
        )
        for number in sorted(lists)
    ]


def _drift(lists: Lists, exported: DriftReference, reference: Lists | None) -> Drift:
    """Compare lists with a reference log, or else with the export or the first of them."""
    scores, scores_from = _compared(lists, "scores", exported.scores, reference)
    histories, histories_from = _compared(lists, "lengths", exported.histories, reference)
    return Drift(
        scores=scores,
        histories=histories,
        scores_from=scores_from,
        histories_from=histories_from,
        unknown_users=exported.unknown_users,
    )


def _compared(
    lists: Lists, name: str, exported: Buckets | None, reference: Lists | None
) -> tuple[float | None, str | None]:
    """Return the index of one number of the lists, and what it compares them with."""
    values = np.array(getattr(lists, name))
    if reference is not None:
        return _index(np.array(getattr(reference, name)), values), (
            REFERENCE if reference.times else None
        )
    if exported is not None and sum(exported.counts) >= LEAST:
        return stability_index(exported, values[~np.isnan(values)]), EXPORT
    order = np.argsort(np.array(lists.times), kind="stable")
    cut = min(_MOST_REFERENCE, len(order) // 2)
    return _index(values[order[:cut]], values[order[cut:]]), FIRST


def _index(before: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float | None:
    before, now = before[~np.isnan(before)], now[~np.isnan(now)]
    return stability_index(buckets(before), now) if len(before) >= LEAST else None
