"""Load test: recorded requests again, at the times at which they are due."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shortlist.clients import RetryPolicy
from shortlist.clients.aio import AsyncGrpcClient
from shortlist.clients.connection import PLAIN, Security
from shortlist.clients.errors import (
    InvalidRequest,
    LabelNotFound,
    Overloaded,
    ServerError,
    ServingError,
    Unsupported,
)
from shortlist.clients.request_log.records import LogRecord
from shortlist.serving.request_log.selection import SelectedLog
from shortlist.serving.request_log.stats import Latencies

__all__ = ["LoadResult", "Pace", "Planned", "plan", "recorded_requests", "send"]

_LATE: Final = 0.010  # seconds; a request sent later than this was held up by this program


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When requests are due.

    Attributes:
        rate: Requests per second; `None` for the recorded moments.
        speed: Factor by which recorded time passes.
    """

    rate: float | None = None
    speed: float = 1.0

    @classmethod
    def of(cls, text: str) -> "Pace":
        """Return the pace of `recorded`, `2x` or `150`.

        Raises:
            ValueError: The text is none of these.
        """
        if text == "recorded":
            return cls()
        number, times = text.removesuffix("x"), text.endswith("x")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ValueError(
                "--rate takes `recorded`, a factor such as 2x, or requests per second such as "
                f"150, got {text!r}"
            )
        return cls(speed=value) if times else cls(rate=value)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A request and when it is due.

    Attributes:
        due: Seconds after the start.
        record: The recorded request.
    """

    due: float
    record: LogRecord


@dataclass(kw_only=True)
class LoadResult:
    """Latencies of a load test.

    Attributes:
        sent: Requests.
        seconds: Duration, until the last answer.
        service: From sending to the answer, as closed-loop tests report it.
        response: From the moment a request was due: includes the wait for slower ones.
        errors: Number of failed requests by message.
        late: Requests that were not sent in time because this program could not keep up.
    """

    sent: int = 0
    seconds: float = 0.0
    service: Latencies = field(default_factory=Latencies)
    response: Latencies = field(default_factory=Latencies)
    errors: Counter[str] = field(default_factory=Counter)
    late: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "requests": self.sent,
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(self.sent / max(self.seconds, 1e-9), 2),
            "failed": self.errors.total(),
            "errors": dict(self.errors.most_common(5)),
            "from_due": self.response.as_json(),
            "from_sent": self.service.as_json(),
            "sent_late": self.late,
        }


def recorded_requests(log: SelectedLog, most: int) -> list[LogRecord]:
    """Return the first requests of a log, in order of time.

    Raises:
        LogFileError: There are none.
    """
    records = list(itertools.islice(log.predictions(), most))
    log.require(len(records), "requests to send")
    return sorted(records, key=lambda record: record.time)


def plan(
    records: Sequence[LogRecord], pace: Pace, *, duration: float | None = None
) -> Iterator[Planned]:
    """Yield requests with the times at which they are due.

    Args:
        records: Requests, in order of time.
        pace: When they are due.
        duration: Seconds to go on for, from the beginning again if need be; `None` to send each
            request once.
    """
    first, last = records[0].time, records[-1].time
    # The next round begins one average gap after the last request.
    lap = (last - first) * len(records) / max(len(records) - 1, 1) / pace.speed
    for number in itertools.count():
        lap_number, place = divmod(number, len(records))
        if lap_number and duration is None:
            return
        record = records[place]
        if pace.rate is not None:
            due = number / pace.rate
        else:
            due = lap_number * max(lap, 1e-3) + (record.time - first) / pace.speed
        if duration is not None and due >= duration:
            return
        yield Planned(due=due, record=record)


async def send(
    planned: Iterator[Planned],
    addresses: Sequence[str],
    *,
    model: str | None = None,
    version: int | None = None,
    label: str | None = None,
    timeout: float,
    in_flight: int = 256,
    security: Security = PLAIN,
) -> LoadResult:
    """Send requests when they are due, whether earlier ones are answered or not.

    Args:
        planned: Requests, by due time.
        addresses: gRPC addresses, used in turn.
        model: Model to ask; `None` for the recorded one.
        version: Version to ask; `None` for the recorded label.
        label: Label to ask; `None` for the recorded one.
        timeout: Seconds for each request.
        in_flight: Most requests at a time, as of as many connections; others wait.
        security: TLS, headers and proxies.

    Raises:
        ServingError: The server does not answer the first request at all.
    """
    options = {"timeout": timeout, "retry": RetryPolicy(max_attempts=1), **security._asdict()}
    async with AsyncGrpcClient(list(addresses), **options) as client:
        sender = _Sender(client, model=model, version=version, label=label, in_flight=in_flight)
        return await sender.send(planned)


class _Sender:
    """Sends requests, and measures; see `send`."""

    def __init__(
        self,
        client: AsyncGrpcClient,
        *,
        model: str | None,
        version: int | None,
        label: str | None,
        in_flight: int,
    ) -> None:
        self._client = client
        self._model, self._version, self._label = model, version, label
        self._slots = asyncio.Semaphore(in_flight)
        self._result = LoadResult()

    async def send(self, planned: Iterator[Planned]) -> LoadResult:
        """Send all requests, and wait for their answers."""
        running: set[asyncio.Task[None]] = set()
        begin: float | None = None
        for request in planned:
            if begin is None:  # opens the connection and reads the metadata before time runs
                await _first(self._ask(request.record))
                begin = time.perf_counter() - request.due
            due = begin + request.due
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._result.sent += 1
            task = asyncio.create_task(self._measure(request.record, due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        self._result.seconds = 0.0 if begin is None else time.perf_counter() - begin
        return self._result

    async def _measure(self, record: LogRecord, due: float) -> None:
        result = self._result
        result.late += time.perf_counter() - due > _LATE
        async with self._slots:
            sent = time.perf_counter()
            try:
                await self._ask(record)
            except (ServingError, ValueError) as exc:
                result.errors[f"{type(exc).__name__}: {exc}"] += 1
                return
            now = time.perf_counter()
        result.service.add(now - sent)
        result.response.add(now - due)

    async def _ask(self, record: LogRecord) -> None:
        chosen = self._label is not None or self._version is not None
        await self._client.predict(
            {name: tensor.array() for name, tensor in record.input_tensors.items()},
            signature=record.signature,
            model=self._model or record.model,
            version=self._version,
            label=self._label if chosen else record.label,
        )


async def _first(call: Any) -> None:
    """Wait for a call that may fail because of what it asks, but not of whom.

    Raises:
        ServingError: All calls would fail likewise.
    """
    try:
        await call
    except LabelNotFound:
        raise
    except (InvalidRequest, Overloaded, ServerError, Unsupported, ValueError):
        pass  # counted when the request is due
