"""The gate `quality`: a new version against the live one, on what neither was trained on.

Held-out interactions of the new version are comparable if the live one was not trained on them
either, whatever its data, split and seed. Both versions get the same requests. For metrics as
served, these carry no user id and everything that the user did before, so that neither version
gains from what it keeps; otherwise a user id, and with seen candidates excluded those that either
version was trained on.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export.gates.comparable import (
    Event,
    JudgedUser,
    judged_as_served,
    judged_by_id,
)
from shortlist.export.gates.questions import Answer, candidate_rows
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import NOT_EXPORTED, Subject
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.version import GateResult, Headline, Manifest
from shortlist.serving.servers.check import FreshServable

__all__ = ["Change", "Comparison", "check_quality", "compare_hits", "plan_comparison"]

_MOST_USERS = 1000  # to ask for
_MIN_INTERACTIONS = 100
_MIN_USERS = 20
_MIN_HITS = 20  # of the live version
_USERS_PER_REQUEST = 100
_CELLS_PER_REQUEST = 50_000  # exclusions or events of histories
_RESAMPLES = 1000
_EXCLUDED = "seen_excluded"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Requests for both versions.

    Attributes:
        headline: Metric to compare; its value is the new version's own, and it is as served if
            the requests are.
        live: Number of the live version.
        live_headline: Headline metric of the live version; None if not recorded.
        users: Questions for the users, ascending by the number of candidate ids in a request.
        unseen: Both versions record what they were trained on, which is not among the questions.
    """

    headline: Headline
    live: int
    live_headline: Headline | None
    users: tuple[JudgedUser, ...]
    unseen: bool = True

    @property
    def k(self) -> int:
        """Cut-off of the metric."""
        return int(self.headline.metric.rpartition("@")[2])

    @property
    def num_interactions(self) -> int:
        """Number of comparable interactions."""
        return sum(len(user.held_out) for user in self.users)

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len({user.user_id for user in self.users})

    @property
    def signature(self) -> str:
        """Signature to ask."""
        return contract.RETRIEVE_BY_QUERY if self.headline.as_served else contract.RETRIEVE

    def queries(self) -> list[GoldenQuery]:
        """Return requests, padded as little as possible."""
        return [
            GoldenQuery(
                signature=self.signature,
                inputs={
                    contract.USER_ID: [user.user_id for user in batch],
                    contract.K: self.k,
                    contract.EXCLUDE: _padded(
                        [user.exclude for user in batch], contract.PADDING_CANDIDATE_ID
                    ),
                    contract.EXCLUDE_SEEN: False,
                    contract.FILTER_ANY: [],
                    contract.FILTER_ALL: [],
                    contract.FILTER_MIN: [],
                    contract.FILTER_MAX: [],
                    **(self._histories(batch) if self.headline.as_served else {}),
                },
                outputs={},
            )
            for batch in _batches(self.users)
        ]

    def _histories(self, batch: Sequence[JudgedUser]) -> dict[str, Any]:
        none: list[list[Any]] = [[] for _ in batch]
        ages = [_ages(user.history) for user in batch]
        return {
            contract.USER_ID: [""] * len(batch),
            contract.HISTORY: _padded(
                [[event[0] for event in user.history] for user in batch],
                contract.PADDING_CANDIDATE_ID,
            ),
            contract.HISTORY_AGE: _padded(ages, contract.UNKNOWN_AGE),
            contract.HISTORY_WEIGHT: none,
            contract.FEATURES: none,
            contract.EXCLUDE_HISTORY: self.headline.protocol == _EXCLUDED,
        }

    def hits(self, rows: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
        """Number of hits of each user, given the answers to all questions in order."""
        hits: dict[str, int] = {}
        for user, row in zip(self.users, rows, strict=True):
            found = sum(candidate in row[: self.k] for candidate in user.held_out)
            hits[user.user_id] = hits.get(user.user_id, 0) + found
        return np.array(list(hits.values()), np.int64)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Relative change of a number of hits, such as -0.1 for 10% fewer, with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def compare_hits(new: npt.NDArray[np.int64], live: npt.NDArray[np.int64]) -> Change:
    """Compare hits by user `[num_users]`; the interval comes from a paired bootstrap over users."""
    random = np.random.default_rng(0)
    weights = random.multinomial(len(new), [1 / len(new)] * len(new), size=_RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = (weights @ new) / (weights @ live) - 1
    # A resample without any hit of the live version shows no drop.
    changes[np.isnan(changes)] = np.inf
    low, high = np.quantile(changes, [0.025, 0.975], method="inverted_cdf")
    return Change(value=float(new.sum() / live.sum() - 1), low=float(low), high=float(high))


def plan_comparison(subject: Subject, settings: GateSettings) -> Comparison | GateResult:
    """Find comparable interactions, or say why the gate is skipped."""
    gate, headline, live = _gate(settings), subject.manifest.headline, subject.live
    if subject.sample is None or subject.corpus is None:
        return gate.skipped(f"the version {_records_nothing(subject.manifest)}")
    if headline is None:
        return gate.skipped("the manifest has no headline metric")
    if live is None:
        return gate.skipped(
            f"no live version to compare with; {headline}{_counted(subject.manifest, headline)}"
        )
    try:
        live_sample, live_corpus = live.sample, live.corpus
    except RepositoryError as exc:
        return gate.skipped(str(exc))
    if live_sample is None or live_corpus is None:
        return gate.skipped(f"version {live.version} {_records_nothing(live.manifest)}")
    signatures = (subject.manifest.signatures, live.manifest.signatures)
    as_served = headline.as_served and all(contract.RETRIEVE_BY_QUERY in of for of in signatures)
    by_user = (judged_as_served if as_served else judged_by_id)(
        (subject.sample, subject.corpus),
        (live_sample, live_corpus),
        exclude=headline.protocol == _EXCLUDED,
    )
    users = itertools.chain.from_iterable(itertools.islice(by_user, _MOST_USERS))
    comparison = Comparison(
        headline=replace(headline, as_served=as_served),
        live=live.version,
        live_headline=live.manifest.headline,
        users=tuple(sorted(users, key=lambda user: user.width)),
        unseen=not (_trained_elsewhere(subject.manifest) or _trained_elsewhere(live.manifest)),
    )
    if comparison.num_users < _MIN_USERS or comparison.num_interactions < _MIN_INTERACTIONS:
        return gate.skipped(
            f"only {_amount(comparison)} for version {live.version}; "
            f"{_MIN_INTERACTIONS} interactions of {_MIN_USERS} users are needed"
        )
    return comparison


def check_quality(
    comparison: Comparison,
    fresh: FreshServable,
    answers: Sequence[Answer],
    live: FreshServable,
    settings: GateSettings,
) -> GateResult:
    """Check that the hit rate is not certainly lower than the live version's by the limit.

    Args:
        comparison: Result of `plan_comparison`.
        fresh: The new version.
        answers: Its answers to the comparison's queries.
        live: The live version with its answers to the same queries.
        settings: Limits of the gates.
    """
    gate, name = _gate(settings), f"version {comparison.live}"
    if comparison.signature not in fresh.signatures:
        return gate.skipped(f"the version has no signature {comparison.signature!r}")
    if live.error is not None:
        return gate.skipped(f"{name} does not load: {live.error}")
    rows, live_rows = candidate_rows(answers), candidate_rows(live.answers)
    if isinstance(rows, str):
        return gate.failed(f"{comparison.signature}: {rows}")
    if isinstance(live_rows, str):
        return gate.skipped(f"{name} does not answer: {live_rows}")
    hits, live_hits = comparison.hits(rows), comparison.hits(live_rows)
    if live_hits.sum() < _MIN_HITS:
        return gate.skipped(
            f"{name} has only {live_hits.sum()} hits in {_amount(comparison)}; "
            f"{_MIN_HITS} are needed to tell versions apart"
        )
    change, total = compare_hits(hits, live_hits), comparison.num_interactions
    measured = (
        f"{comparison.headline.name} {hits.sum() / total:.4f}, "
        f"{name}: {live_hits.sum() / total:.4f}, change {change}, on {total:,} interactions of "
        f"{comparison.num_users:,} users"
    )
    if comparison.unseen:
        measured += " that neither was trained on"
    theirs = comparison.live_headline
    if theirs is not None and theirs.protocol != comparison.headline.protocol:
        measured += f"; {name} is meant for {theirs.name}"
    return gate.result(change.high >= -settings.max_quality_drop, measured)


def _gate(settings: GateSettings) -> Gate:
    limit = settings.max_quality_drop
    return Gate("quality", f"upper end of the change's 95% interval >= {-limit:.0%}")


def _counted(manifest: Manifest, headline: Headline) -> str:
    held_out = manifest.metrics.get("held_out", {})
    if "interactions" not in held_out:
        return ""
    repeats = held_out.get("repeats", 0) if headline.protocol == _EXCLUDED else 0
    return f" on {held_out['interactions'] - repeats:,} held-out interactions"


def _trained_elsewhere(manifest: Manifest) -> bool:
    return "similarity" in manifest.config  # of `OwnConfig` alone


def _records_nothing(manifest: Manifest) -> str:
    origin = "exported by an earlier release" if manifest.created else NOT_EXPORTED
    if _trained_elsewhere(manifest):
        origin = "trained elsewhere"
    return f"does not record what it was trained on ({origin})"


def _amount(comparison: Comparison) -> str:
    count, users = comparison.num_interactions, comparison.num_users
    return f"{count:,} comparable interactions of {users:,} users"


def _batches(users: Sequence[JudgedUser]) -> Iterator[Sequence[JudgedUser]]:
    """Yield questions that go into one request, given ascending widths."""
    start = 0
    for stop, user in enumerate(users):
        size = stop + 1 - start
        wide = size > 1 and size * user.width > _CELLS_PER_REQUEST
        if wide or size > _USERS_PER_REQUEST:
            yield users[start:stop]
            start = stop
    if start < len(users):
        yield users[start:]


def _ages(history: Sequence[Event]) -> list[float]:
    """Return seconds before the last event."""
    last = history[-1][1] if history else None
    return [
        contract.UNKNOWN_AGE if time is None or last is None else float(last - time)
        for _, time in history
    ]


def _padded(rows: Sequence[Sequence[T]], padding: T) -> list[list[T]]:
    width = max(map(len, rows))
    return [[*row, *[padding] * (width - len(row))] for row in rows]
