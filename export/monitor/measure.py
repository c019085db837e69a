"""Measures what was served: reads logs, interactions and versions, and returns the figures."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shortlist.clients.request_log.reading import read_log
from shortlist.clients.request_log.user_ids import hash_user_id
from shortlist.clients.types import Retrieval
from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute
from shortlist.export.data.loading import load
from shortlist.export.data.outcomes import Outcomes
from shortlist.export.data.reading.locations import listed
from shortlist.export.data.sources.tabular import read_users
from shortlist.export.monitor.collect import Collector, Lists, SegmentOf
from shortlist.export.monitor.figures import Served, served
from shortlist.export.monitor.settings import MonitorSettings
from shortlist.export.monitor.versions import VersionFacts, version_facts
from shortlist.export.monitor.words import drift_notes, seconds
from shortlist.serving.repository.local import ModelRepository

__all__ = ["Monitoring", "measure"]

_MOST_SEGMENTS = 20  # more would be too many series for Prometheus
_OTHER = "(other)"


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """All figures of one measurement.

    Attributes:
        time: Time of the measurement in epoch seconds.
        newest: Time of the newest list; `None` without one.
        window: Seconds after a list in which interactions count.
        k: Cut-off of the hit rate.
        every: Seconds between measurements; `None` for a single one.
        segmented_by: What the segments are; `known user` or a column.
        served: Figures by model, version and label.
        notes: Lines about what was left out or is missing.
    """

    time: float
    newest: float | None
    window: float
    k: int
    every: float | None
    segmented_by: str
    served: Sequence[Served]
    notes: Sequence[str]


def measure(settings: MonitorSettings, *, now: float) -> Monitoring:
    """Read logs and interactions once, and return the figures.

    Args:
        settings: What to read and how.
        now: Time of the measurement in epoch seconds.

    Raises:
        ShortlistError: A log, the interactions or a version cannot be read.
    """
    outcomes = None
    if settings.interactions is not None:
        outcomes = Outcomes.of(load(settings.interactions), user_id=_renamed(settings))
    since = 0.0 if settings.last is None else now - settings.last
    collect = functools.partial(
        Collector, segment_of=_segments(settings), window=settings.window, now=now
    )
    collector = collect(outcomes, since=since)
    others = _read(collector, settings.logs, settings, since=since)
    reference: Mapping[tuple[str, int | None], Lists] | None = None
    if settings.reference:
        earlier = collect(None)
        _read(earlier, settings.reference, settings)
        reference = earlier.versions
    versions, missing = _versions(settings, collector)
    figures = served(collector, k=settings.k, versions=versions, reference=reference)
    return Monitoring(
        time=now,
        newest=collector.newest if collector.groups else None,
        window=settings.window,
        k=settings.k,
        every=settings.every,
        segmented_by=settings.segment_column or "known user",
        served=figures,
        notes=[*_notes(collector, others, settings), *missing, *drift_notes(figures)],
    )


def _renamed(settings: MonitorSettings) -> functools.partial[str] | type[str]:
    return str if settings.key is None else functools.partial(hash_user_id, key=settings.key)


def _read(
    collector: Collector,
    logs: Sequence[str],
    settings: MonitorSettings,
    *,
    since: float = 0.0,
) -> Counter[str]:
    """Count the records of logs; return the number of those of other models, by model."""
    others: Counter[str] = Counter()
    for record in read_log(logs, since=since):
        if settings.models and record.model not in settings.models:
            others[record.model] += 1
        else:
            collector.add(record)
    return others


def _segments(settings: MonitorSettings) -> SegmentOf:
    """Return the function that names the segment of a list."""
    if settings.users is None or settings.segment_column is None:
        return _by_knowledge
    table = read_users(settings.users)
    column = settings.segment_column
    if column not in table.attributes:
        raise DataError(
            f"{table.where} has no column {column!r} with attributes, only "
            f"{listed(list(table.attributes))}; correct --segment-column"
        )
    texts = _texts(table.attributes[column])
    common = {text for text, _ in Counter(texts).most_common(_MOST_SEGMENTS)}
    renamed = _renamed(settings)
    segments = {
        renamed(user_id): text if text in common else _OTHER
        for user_id, text in zip(table.ids, texts, strict=True)
    }
    return lambda retrieval: segments.get(retrieval.user_id, _OTHER)


def _by_knowledge(retrieval: Retrieval) -> str | None:
    if retrieval.known_user is None:
        return None
    if not retrieval.user_id:
        return "no user id"
    return "known" if retrieval.known_user else "unknown"


def _texts(attribute: Attribute) -> list[str]:
    if attribute.numbers is not None:
        return [f"{number:g}" for number in attribute.numbers.tolist()]
    assert attribute.values is not None
    return [", ".join(values) or _OTHER for values in attribute.values]


def _versions(
    settings: MonitorSettings, collector: Collector
) -> tuple[dict[tuple[str, int | None], VersionFacts], list[str]]:
    """Return the facts about the versions in a log, and lines about those that are missing."""
    repository = ModelRepository(settings.repository)
    found: dict[tuple[str, int | None], VersionFacts] = {}
    missing = []
    for model, version in collector.versions:
        facts = None if version is None else version_facts(repository, model, version)
        if facts is None:
            missing.append(
                f"{model} without a version" if version is None else f"{model}/{version}"
            )
        else:
            found[model, version] = facts
    note = (
        f"not in the repository {settings.repository}, so that age and coverage are unknown: "
        f"{listed(missing)}"
    )
    return found, [note] if missing else []


def _notes(collector: Collector, others: Counter[str], settings: MonitorSettings) -> list[str]:
    notes = []
    if collector.skipped:
        parts = ", ".join(f"{count:,} {what}" for what, count in collector.skipped.most_common())
        notes.append(f"left out, as they are not retrievals: {parts}")
    if collector.shadows:
        notes.append(f"left out: {collector.shadows:,} shadow copies, whose answers no caller got")
    if others:
        parts = ", ".join(f"{count:,} {what}" for what, count in others.most_common())
        notes.append(f"left out, as --model does not name them: {parts}")
    if collector.anonymous:
        notes.append(
            f"lists without a user id, which no interaction can follow: {collector.anonymous:,}"
        )
    if collector.sampled:
        notes.append(
            f"lists of logs that hold a share of the requests: {collector.sampled:,}, of about "
            f"{collector.shown:,.0f}; numbers count those in the log, rates and shares weigh them "
            "by its sampling rate"
        )
    if collector.outcomes is not None and collector.sampled:
        notes.append(
            "interactions after a list that was not logged belong to an earlier one or to none"
        )
    attributed = int((collector.list_groups >= 0).sum())
    if collector.outcomes is not None and collector.groups and not attributed:
        notes.append(
            f"none of the {len(collector.outcomes.times):,} interactions follows a list of its "
            f"user within the window of {seconds(settings.window)}; are the user ids and times "
            "those of the log?"
        )
    return notes
