"""What a replay found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shortlist.export.evaluation.metrics import Interval

__all__ = ["Changed", "Limit", "OutcomeFigures", "Replay", "SideFigures"]


@dataclass(frozen=True, kw_only=True)
class SideFigures:
    """Figures of one version's answers.

    Attributes:
        name: The version.
        failed: Number of queries that it did not answer.
        errors: Number of failed queries by message, of the most frequent ones.
        empty: Number of answers without candidates.
        unknown_users: Number of answers for user ids that it does not know; `None` if it does not
            say.
        distinct: Number of different candidates in all lists.
        p50_ms: Median latency; `None` without answers.
        p99_ms: 99th percentile of the latency.
    """

    name: str
    failed: int
    errors: Mapping[str, int]
    empty: int
    unknown_users: int | None
    distinct: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A query whose lists differ.

    Attributes:
        user_id: User id; empty without a user.
        time: Time of the request in epoch seconds.
        history: Names of the last events.
        overlap: Share of the first list that the second also has.
        before: Names of the first version's candidates.
        after: Names of the second version's candidates.
        chosen: Names of what the user chose within the window.
    """

    user_id: str
    time: float
    history: Sequence[str]
    overlap: float
    before: Sequence[str]
    after: Sequence[str]
    chosen: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class OutcomeFigures:
    """What users did after the requests.

    Attributes:
        method: `plain`: a hit counts 1, whatever the log's version had shown.
        window: Seconds after a request in which interactions count.
        interactions: Interactions, each counted for the user's latest request before it.
        users: Number of their users.
        hit_rates: Share of these in the top k of the two versions and, last, in the recorded
            lists.
        intervals: 95% interval of each; `None` with few users.
        difference: Second minus first.
        difference_interval: Its 95% interval; `None` with few users.
        notes: What distorts these figures.
    """

    method: str
    window: float
    interactions: int
    users: int
    hit_rates: tuple[float, float, float]
    intervals: tuple[Interval | None, Interval | None, Interval | None]
    difference: float
    difference_interval: Interval | None
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit, and whether it was kept.

    Attributes:
        name: What is limited.
        first: Value of the first version.
        second: Value of the second version.
        worse_by: How much worse the second one is.
        allowed: How much worse it may be.
        kept: Whether it is not worse than that.
    """

    name: str
    first: float | None
    second: float | None
    worse_by: float
    allowed: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Recorded queries, asked of two versions.

    Attributes:
        log: Name of the log.
        model: Model in the log.
        how: `offline`, in one process, or the address of the server.
        queries: Number of queries asked.
        recorded: Number of queries in the log, of which they are a sample.
        first_time: Time of the first query, in epoch seconds.
        last_time: Time of the last one.
        k: Cut-off.
        sides: Figures of the two versions.
        overlap: Mean share of the first version's top k that the second also returns.
        overlaps: Number of queries by overlap, in ten steps from 0 to 1.
        same_lists: Share of queries with the same candidates in the same order.
        rank_correlation: Mean of Kendall's tau over the candidates that both return; `None` without
            lists that have two in common.
        new_empty: Queries that only the second version answers with nothing.
        changed: The most different lists.
        outcomes: What users did; `None` without interactions.
        limits: Limits.
        left_out: Number of records that were not asked, by reason.
        notes: What the log does not hold.
    """

    log: str
    model: str
    how: str
    queries: int
    recorded: int
    first_time: float
    last_time: float
    k: int
    sides: tuple[SideFigures, SideFigures]
    overlap: float | None
    overlaps: Sequence[int]
    same_lists: float | None
    rank_correlation: float | None
    new_empty: int
    changed: Sequence[Changed]
    outcomes: OutcomeFigures | None
    limits: Sequence[Limit]
    left_out: Mapping[str, int]
    notes: Sequence[str] = ()

    @property
    def kept(self) -> bool:
        """Whether all limits were kept."""
        return all(limit.kept for limit in self.limits)
