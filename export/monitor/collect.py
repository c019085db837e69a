"""One pass over request logs: counts by servable, label and segment, and the join with outcomes."""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from shortlist.clients import contract
from shortlist.clients.request_log.records import LogRecord
from shortlist.clients.types import Retrieval
from shortlist.export.data.outcomes import Outcomes

__all__ = ["HOUR", "Collector", "Group", "GroupKey", "Lists", "SegmentOf"]

HOUR: Final = 3600

SegmentOf = Callable[[Retrieval], str | None]


class GroupKey(NamedTuple):
    """Lists that are counted together."""

    model: str
    version: int | None
    label: str | None
    segment: str | None


@dataclass(kw_only=True)
class Group:
    """Counts of one group; floats weigh a list by the inverse of its log's sampling rate.

    Attributes:
        lists: Lists in the log.
        impressions: Candidates in them.
        shown: Lists that were shown.
        ripe: Candidates in lists of users whose window has passed.
        empty: Lists without a candidate.
        users: Numbers of the users.
        candidates: Numbers of the candidates.
        told: Lists for a user id whose answer tells whether the user is known.
        unknown: Those whose user is unknown.
        events: Events in histories whose answer tells how many are known.
        unknown_events: Those whose candidate is unknown.
        hours: Lists by hour since the epoch.
        first: Time of the first list.
        last: Time of the last list.
    """

    lists: int = 0
    impressions: int = 0
    shown: float = 0.0
    ripe: float = 0.0
    empty: float = 0.0
    users: set[int] = field(default_factory=set)
    candidates: set[int] = field(default_factory=set)
    told: float = 0.0
    unknown: float = 0.0
    events: float = 0.0
    unknown_events: float = 0.0
    hours: Counter[int] = field(default_factory=Counter)
    first: float = np.inf
    last: float = -np.inf

    def merge(self, other: "Group") -> None:
        """Add the counts of another group."""
        for name in (
            *("lists", "impressions", "shown", "ripe", "empty"),
            *("told", "unknown", "events", "unknown_events"),
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.users |= other.users
        self.candidates |= other.candidates
        self.hours += other.hours
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)


@dataclass(kw_only=True)
class Lists:
    """What lists of one version look like, for their drift.

    Attributes:
        times: Time of each list.
        scores: Score of its first candidate; NaN without one.
        lengths: Events in the history of the request; NaN if it cannot carry one.
    """

    times: "array[float]" = field(default_factory=lambda: array("d"))
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    lengths: "array[float]" = field(default_factory=lambda: array("d"))


class Collector:
    """Counts the lists of a request log, and attributes interactions to them.

    An interaction belongs to the latest list that its user got before it, if that was at most a
    window ago. So it counts once, however often the user asked.

    Args:
        outcomes: Interactions; `None` without any.
        segment_of: Returns the segment of a list.
        window: Seconds after a list in which interactions count.
        now: Time of the measurement.
        since: Time before which lists are left out.

    Attributes:
        groups: Groups in the order of their numbers.
        versions: Lists by model and version.
        skipped: Records that are not retrievals, by kind or signature, or `unreadable`.
        ripe_until: Time up to which the window of a list has passed.
        shadows: Copies of requests whose answer the caller did not get; see `Split.shadow`.
        anonymous: Lists without a user id, which no interaction can follow.
        sampled: Lists from logs that hold only a share of the requests.
        shown: About how many lists these stand for.
        newest: Time of the newest list.
        list_times: Of each interaction, the time of its list; minus infinity without one.
        list_groups: The number of the list's group; -1 without one.
        list_weights: How many lists the list stands for.
        ranks: The candidate's place in the list, from 0; -1 if it is not in it.
    """

    def __init__(
        self,
        outcomes: Outcomes | None,
        *,
        segment_of: SegmentOf,
        window: float,
        now: float,
        since: float = 0.0,
    ) -> None:
        self.outcomes = outcomes
        self._segment_of = segment_of
        self._window = window
        self.ripe_until = now - window
        self._since = since
        self.groups: dict[GroupKey, tuple[int, Group]] = {}
        self.versions: dict[tuple[str, int | None], Lists] = {}
        self.skipped: Counter[str] = Counter()
        self.shadows = 0
        self.anonymous = 0
        self.sampled = 0
        self.shown = 0.0
        self.newest = -np.inf
        size = 0 if outcomes is None else len(outcomes.times)
        self.list_times = np.full(size, -np.inf)
        self.list_groups = np.full(size, -1, np.int32)
        self.list_weights = np.ones(size)
        self.ranks = np.full(size, -1, np.int32)
        self._users: dict[str, int] = {}
        self._candidates: dict[str, int] = {}

    def add(self, record: LogRecord) -> None:
        """Count the lists of a record."""
        if record.time < self._since:
            return
        if record.shadow:
            self.shadows += 1
            return
        try:
            retrievals = record.retrievals if record.kind == "predict" else []
            lengths = _history_lengths(record, len(retrievals))
        except ValueError:
            self.skipped["unreadable"] += 1
            return
        if not retrievals:
            self.skipped[record.signature if record.kind == "predict" else record.kind] += 1
            return
        lists = self.versions.setdefault((record.model, record.version), Lists())
        self.newest = max(self.newest, record.time)
        if record.sampling_rate < 1:
            self.sampled += len(retrievals)
            self.shown += len(retrievals) / record.sampling_rate
        for retrieval, length in zip(retrievals, lengths, strict=True):
            lists.times.append(record.time)
            lists.scores.append(retrieval.scores[0] if retrieval.scores else np.nan)
            lists.lengths.append(np.nan if length is None else length)
            self._count(record, retrieval, length)

    def _count(self, record: LogRecord, retrieval: Retrieval, length: int | None) -> None:
        key = GroupKey(record.model, record.version, record.label, self._segment_of(retrieval))
        number, group = self.groups.setdefault(key, (len(self.groups), Group()))
        time, shown, weight = record.time, retrieval.candidate_ids, 1 / record.sampling_rate
        group.lists += 1
        group.impressions += len(shown)
        group.shown += weight
        group.empty += 0 if shown else weight
        group.hours[int(time // HOUR)] += 1
        group.first, group.last = min(group.first, time), max(group.last, time)
        for candidate_id in shown:
            code = self._candidates.setdefault(candidate_id, len(self._candidates))
            group.candidates.add(code)
        if retrieval.known_user is not None and retrieval.user_id:
            group.told += weight
            group.unknown += 0 if retrieval.known_user else weight
        if length is not None and retrieval.known_history is not None:
            group.events += length * weight
            group.unknown_events += max(length - retrieval.known_history, 0) * weight
        if not retrieval.user_id:
            self.anonymous += 1
            return
        group.ripe += len(shown) * weight if time <= self.ripe_until else 0
        group.users.add(self._users.setdefault(retrieval.user_id, len(self._users)))
        if self.outcomes is not None:
            self._attribute(self.outcomes, retrieval, time, number, weight)

    def _attribute(
        self, outcomes: Outcomes, retrieval: Retrieval, time: float, number: int, weight: float
    ) -> None:
        places = outcomes.after(retrieval.user_id, time, self._window)
        if not places:
            return
        ranks = {own: rank for rank, own in enumerate(retrieval.candidate_ids)}
        for place in places:
            if self.list_times[place] < time:
                self.list_times[place] = time
                self.list_groups[place] = number
                self.list_weights[place] = weight
                candidate = outcomes.candidate_ids[outcomes.candidates[place]]
                self.ranks[place] = ranks.get(candidate, -1)


def _history_lengths(record: LogRecord, count: int) -> list[int | None]:
    """Return the number of events in the history of each row; `None` if it cannot carry one."""
    tensor = record.input_tensors.get(contract.HISTORY)
    if tensor is None or len(tensor.shape) != 2 or tensor.shape[0] != count:
        return [None] * count
    padding = contract.PADDING_CANDIDATE_ID.encode()
    return [sum(event != padding for event in row) for row in tensor.value()]
