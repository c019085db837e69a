"""The gate `quality`: a new version against the live one, on what neither was trained on.

Held-out interactions of the new version are comparable if the live one was not trained on them
either, whatever its data, split and seed. Both versions get the same requests: with seen
candidates excluded, those that either version was trained on.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export.data.fingerprint import hash_ids
from shortlist.export.gates.questions import Answer, candidate_rows
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.probe import Interaction, SampledUser, UserSample
from shortlist.serving.repository.version import GateResult, Headline, Manifest
from shortlist.serving.servers.check import FreshServable

__all__ = ["Change", "Comparison", "JudgedUser", "check_quality", "compare_hits", "plan_comparison"]

_MOST_USERS = 1000  # to ask
_MIN_INTERACTIONS = 100
_MIN_USERS = 20
_MIN_HITS = 20  # of the live version
_USERS_PER_REQUEST = 100
_EXCLUSIONS_PER_REQUEST = 50_000
_RESAMPLES = 1000
_EXCLUDED = "seen_excluded"


@dataclass(frozen=True, kw_only=True)
class JudgedUser:
    """A user with comparable interactions.

    Attributes:
        user_id: User id.
        exclude: Candidate ids that neither version may return.
        held_out: Candidate id of each comparable interaction.
    """

    user_id: str
    exclude: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Requests for both versions.

    Attributes:
        headline: Metric to compare; its value is the new version's own.
        live: Number of the live version.
        live_headline: Headline metric of the live version; None if not recorded.
        users: Users to ask for, ascending by number of exclusions.
    """

    headline: Headline
    live: int
    live_headline: Headline | None
    users: tuple[JudgedUser, ...]

    @property
    def k(self) -> int:
        """Cut-off of the metric."""
        return int(self.headline.metric.rpartition("@")[2])

    @property
    def num_interactions(self) -> int:
        """Number of comparable interactions."""
        return sum(len(user.held_out) for user in self.users)

    def queries(self) -> list[GoldenQuery]:
        """Return requests to `retrieve`, padded as little as possible."""
        return [
            GoldenQuery(
                signature=contract.RETRIEVE,
                inputs={
                    contract.USER_ID: [user.user_id for user in batch],
                    contract.K: self.k,
                    contract.EXCLUDE: _padded([user.exclude for user in batch]),
                    contract.EXCLUDE_SEEN: False,
                    contract.FILTER_ANY: [],
                    contract.FILTER_ALL: [],
                    contract.FILTER_MIN: [],
                    contract.FILTER_MAX: [],
                },
                outputs={},
            )
            for batch in _batches(self.users)
        ]

    def hits(self, rows: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
        """Number of hits of each user, given the answers for all users in order."""
        k = self.k
        return np.array(
            [
                sum(candidate in row[:k] for candidate in user.held_out)
                for user, row in zip(self.users, rows, strict=True)
            ]
        )


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
    judged = _judged(
        (subject.sample, subject.corpus),
        (live_sample, live_corpus),
        exclude=headline.protocol == _EXCLUDED,
    )
    users = sorted(itertools.islice(judged, _MOST_USERS), key=lambda user: len(user.exclude))
    comparison = Comparison(
        headline=headline,
        live=live.version,
        live_headline=live.manifest.headline,
        users=tuple(users),
    )
    if len(users) < _MIN_USERS or comparison.num_interactions < _MIN_INTERACTIONS:
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
    if contract.RETRIEVE not in fresh.signatures:
        return gate.skipped(f"the version has no signature {contract.RETRIEVE!r}")
    if live.error is not None:
        return gate.skipped(f"{name} does not load: {live.error}")
    rows, live_rows = candidate_rows(answers), candidate_rows(live.answers)
    if isinstance(rows, str):
        return gate.failed(f"{contract.RETRIEVE}: {rows}")
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
        f"{len(comparison.users):,} users that neither was trained on"
    )
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


def _records_nothing(manifest: Manifest) -> str:
    origin = "exported by an earlier release" if manifest.created else "a SavedModel from elsewhere"
    return f"does not record what it was trained on ({origin})"


def _amount(comparison: Comparison) -> str:
    count, users = comparison.num_interactions, len(comparison.users)
    return f"{count:,} comparable interactions of {users:,} users"


def _judged(
    own: tuple[UserSample, Sequence[str]],
    live: tuple[UserSample, Sequence[str]],
    *,
    exclude: bool,
) -> Iterator[JudgedUser]:
    """Yield the users whose part in both trainings is known, with comparable interactions."""
    sample, live_sample = own[0], live[0]
    hashes = hash_ids(list(sample.users)).tolist()
    for (user_id, user), user_hash in zip(sample.users.items(), hashes, strict=True):
        if user_hash >= live_sample.bound or user_id in live_sample.left_out:
            continue
        live_fitted = live_sample.users.get(user_id, SampledUser()).fitted
        fitted = [*_by_id(user.fitted, own[1]), *_by_id(live_fitted, live[1])]
        held_out = _by_id(user.held_out, own[1])
        seen = {candidate for candidate, _ in fitted}
        if exclude or any(time is None for _, time in (*fitted, *held_out)):
            comparable = [candidate for candidate, _ in held_out if candidate not in seen]
        else:
            rows = set(fitted)
            comparable = [row[0] for row in held_out if row not in rows]
        if comparable:
            yield JudgedUser(
                user_id=user_id,
                exclude=tuple(sorted(seen)) if exclude else (),
                held_out=tuple(comparable),
            )


def _by_id(
    interactions: Sequence[Interaction], corpus: Sequence[str]
) -> list[tuple[str, int | None]]:
    return [(corpus[position], time) for position, time in interactions]


def _batches(users: Sequence[JudgedUser]) -> Iterator[Sequence[JudgedUser]]:
    """Yield users that go into one request, given ascending numbers of exclusions."""
    start = 0
    for stop, user in enumerate(users):
        size = stop + 1 - start
        wide = size > 1 and size * len(user.exclude) > _EXCLUSIONS_PER_REQUEST
        if wide or size > _USERS_PER_REQUEST:
            yield users[start:stop]
            start = stop
    if start < len(users):
        yield users[start:]


def _padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    width = max(map(len, rows))
    return [[*row, *[contract.PADDING_CANDIDATE_ID] * (width - len(row))] for row in rows]
