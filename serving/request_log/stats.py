"""Figures of a request log, in one pass and bounded memory."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from shortlist.clients.request_log.records import LogRecord
from shortlist.serving.request_log.sampling import DistinctSample
from shortlist.serving.request_log.selection import SelectedLog

__all__ = ["Latencies", "LogStats", "Part", "collect"]

_STEP: Final = math.log(1.01)  # width of the buckets of latencies: 1 %
_PERIODS: Final = 48  # of the rate over time
_USERS: Final = 4096  # distinct users that are counted exactly; more are estimated to 2 %
_MOST: Final = 1000  # parts and signatures to tell apart


class Latencies:
    """Quantiles of durations, to 1 %."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """Take a duration into account."""
        self._longest = max(self._longest, seconds)
        self._buckets[round(math.log(max(seconds, 1e-7)) / _STEP)] += 1

    @property
    def count(self) -> int:
        """Number of durations."""
        return self._buckets.total()

    def quantile(self, share: float) -> float | None:
        """Return the duration, in seconds, that a share does not exceed; `None` without any."""
        left = share * self.count
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(math.exp(bucket * _STEP), self._longest)
        return None

    def as_json(self) -> dict[str, float | None]:
        """Return quantiles in milliseconds."""
        quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        return {
            f"{name}_ms": None if value is None else round(value * 1e3, 3)
            for name, share in quantiles.items()
            for value in [self.quantile(share)]
        }


class _Periods:
    """Number of requests per period; periods get longer as more time passes."""

    def __init__(self) -> None:
        self.seconds = 1
        self._counts: dict[int, float] = {}

    def add(self, time: float, weight: float) -> None:
        _add(self._counts, int(time // self.seconds), weight)
        while max(self._counts) - min(self._counts) >= _PERIODS:
            self.seconds *= 2
            wider: dict[int, float] = {}
            for period, count in self._counts.items():
                _add(wider, period // 2, count)
            self._counts = wider

    def rates(self) -> list[tuple[float, float]]:
        """Return the start of each period in epoch seconds, and its requests per second."""
        if not self._counts:
            return []
        return [
            (period * self.seconds, self._counts.get(period, 0.0) / self.seconds)
            for period in range(min(self._counts), max(self._counts) + 1)
        ]


def _add(counts: dict[int, float], key: int, number: float) -> None:
    counts[key] = counts.get(key, 0.0) + number


@dataclass(kw_only=True)
class Part:
    """Figures of the requests of one model, version and label.

    Attributes:
        requests: Records.
        estimated: Requests that they stand for, as only a share was logged.
        rows: Retrieved lists; a request may ask for several.
        told: Lists for a user id of versions that say whether they know it.
        unknown_users: Lists for users whom the version does not know.
        empty: Lists without candidates.
        latencies: Latencies of the requests.
    """

    requests: int = 0
    estimated: float = 0.0
    rows: int = 0
    told: int = 0
    unknown_users: int = 0
    empty: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "requests": self.requests,
            "estimated_requests": round(self.estimated, 1),
            "lists": self.rows,
            "unknown_users": self.unknown_users if self.told else None,
            "empty": self.empty,
            **self.latencies.as_json(),
        }


class LogStats:
    """Figures of all records.

    Attributes:
        parts: Figures by model, version and label.
        signatures: Number of requests by model and signature.
        sizes: Number of lists by their number of candidates.
        transports: Number of requests by transport.
        users: Sample of the users, which counts them.
        first: Start of the first request in epoch seconds; `None` without times.
        last: Start of the last one.
    """

    def __init__(self) -> None:
        self.parts: dict[tuple[str, int | None, str | None], Part] = {}
        self.signatures: Counter[tuple[str, str]] = Counter()
        self.sizes: Counter[int] = Counter()
        self.transports: Counter[str] = Counter()
        self.users = DistinctSample[None](_USERS)
        self.first: float | None = None
        self.last: float | None = None
        self._periods = _Periods()

    def add(self, record: LogRecord) -> None:
        """Take a record into account.

        Raises:
            ValueError: Its tensors contradict themselves.
        """
        lists, users = record.retrievals, record.user_ids  # first, as these may raise
        key = (record.model, record.version, record.label)
        if key not in self.parts and len(self.parts) >= _MOST:
            key = ("(others)", None, None)
        part = self.parts.setdefault(key, Part())
        weight = 1 / record.sampling_rate
        part.requests += 1
        part.estimated += weight
        part.rows += len(lists)
        named = [row.known_user for row in lists if row.user_id]
        part.told += sum(known is not None for known in named)
        part.unknown_users += sum(known is False for known in named)
        part.empty += sum(not len(row) for row in lists)
        if record.latency is not None:
            part.latencies.add(record.latency)
        signature = (record.model, record.signature)
        if signature not in self.signatures and len(self.signatures) >= _MOST:
            signature = ("(others)", "(others)")
        self.signatures[signature] += 1
        self.sizes.update(map(len, lists))
        self.transports[record.transport or "unknown"] += 1
        for user in users:
            if user:
                self.users.add(user.encode(), None)
        if record.time:
            self._periods.add(record.time, weight)
            self.first = min(record.time, self.first or math.inf)
            self.last = max(record.time, self.last or -math.inf)

    @property
    def requests(self) -> int:
        """Number of records."""
        return sum(part.requests for part in self.parts.values())

    @property
    def estimated(self) -> float:
        """Number of requests that the records stand for."""
        return sum(part.estimated for part in self.parts.values())

    def rates(self) -> list[tuple[float, float]]:
        """Return the start of each period in epoch seconds, and its requests per second."""
        return self._periods.rates()

    def as_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "requests": self.requests,
            "estimated_requests": round(self.estimated, 1),
            "first": self.first,
            "last": self.last,
            "users": self.users.count,
            "users_exact": self.users.exact,
            "parts": [
                {"model": model, "version": version, "label": label, **part.as_json()}
                for (model, version, label), part in self.parts.items()
            ],
            "signatures": [
                {"model": model, "signature": signature, "requests": count}
                for (model, signature), count in self.signatures.most_common()
            ],
            "candidates": {str(size): self.sizes[size] for size in sorted(self.sizes)},
            "transports": dict(self.transports),
            "requests_per_second": [
                {"from": start, "seconds": self._periods.seconds, "rate": round(rate, 4)}
                for start, rate in self.rates()
            ],
        }


def collect(log: SelectedLog) -> LogStats:
    """Return the figures of a log.

    Raises:
        LogFileError: It holds none of the selected records.
    """
    stats = LogStats()
    records: Iterable[LogRecord] = log
    for record in records:
        try:
            stats.add(record)
        except ValueError as exc:
            log.left_out[f"not readable ({exc})"] += 1
    log.require(stats.requests, "readable records")
    return stats
