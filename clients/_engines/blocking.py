"""Carries out flows with threads: deadlines, retries, hooks and parallel parts."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from shortlist.clients._calls.flows import NAME_ERRORS, Flow, Many, Quiet, Sleep, explanation
from shortlist.clients._calls.retry import Attempts, Deadline, RetryBudget, RetryPolicy
from shortlist.clients._codecs.requests import Outputs, PredictRequest, Request, Target
from shortlist.clients._engines.forks import generation
from shortlist.clients.errors import DeadlineExceeded, ServingError, TooManyInFlight
from shortlist.clients.hooks import CallEvent, Hook, notify
from shortlist.clients.types import Metadata

__all__ = ["QUIET_TIMEOUT", "Engine", "Recorder", "Transport", "check_limits", "deadline_error"]

log = logging.getLogger(__name__)
T = TypeVar("T")

QUIET_TIMEOUT = 5.0  # seconds, for one question on the side


class Transport(Protocol):
    """Sends one request once."""

    name: str

    def addresses(self) -> Sequence[str]:
        """All servers, as the user wrote them."""
        ...

    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        """The answer of the server with that index in `addresses`.

        Raises:
            ServingError: There is none, or it says no.
            ValueError: The request cannot be sent at all.
        """
        ...

    def close(self) -> None:
        """Gives back every socket; may be called twice."""
        ...


class Recorder:
    """Measures one request and tells the hooks."""

    __slots__ = ("_hooks", "_request", "_start", "_started", "_transport")

    def __init__(self, hooks: Sequence[Hook], transport: str, request: Request) -> None:
        self._hooks = hooks
        self._transport = transport
        self._request = request
        self._started = time.time()
        self._start = time.perf_counter()

    def done(self, address: str, attempts: int, reply: Any, error: ServingError | None) -> None:
        """Notes the end."""
        target = self._request.target
        answered = reply.version if isinstance(reply, Outputs | Metadata) else None
        event = CallEvent(
            operation=self._request.operation,
            transport=self._transport,
            address=address,
            model=target.model if target else None,
            version=answered or (target.version if target else None),
            label=target.label if target else None,
            status="OK" if error is None else type(error).__name__,
            started=self._started,
            seconds=time.perf_counter() - self._start,
            attempts=attempts,
        )
        notify(self._hooks, event)


def check_limits(*, max_in_flight: int | None, batch_size: int, parallel: int) -> None:
    """Refuses limits below 1.

    Raises:
        ValueError: See above.
    """
    for name, value in (
        ("max_in_flight", max_in_flight),
        ("batch_size", batch_size),
        ("parallel", parallel),
    ):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def deadline_error(request: Request, address: str, deadline: Deadline) -> DeadlineExceeded:
    """The error of a call that ran out of time before it could be sent (again)."""
    return DeadlineExceeded(
        f"{request.operation} at {address} did not end within {deadline.timeout:g} s; "
        "raise timeout, or find out why the server is slow"
    )


class Engine:
    """Runs flows over one transport; safe to share between threads."""

    def __init__(
        self,
        transport: Transport,
        *,
        retry: RetryPolicy,
        hooks: Sequence[Hook],
        max_in_flight: int | None,
        parallel: int,
    ) -> None:
        self._transport = transport
        self._addresses = transport.addresses()
        self._policy = retry
        self._budget = RetryBudget(retry)
        self._hooks = tuple(hooks)
        self._slots = threading.Semaphore(max_in_flight) if max_in_flight else None
        self._max_in_flight = max_in_flight
        self._parallel = parallel
        self._pool: ThreadPoolExecutor | None = None
        self._pool_born_in = 0
        self._lock = threading.Lock()
        self._turn = 0
        self.closed = False

    def run(self, flow: Flow[T], timeout: float, target: Target | None = None) -> T:
        """Result of the flow, within `timeout` seconds.

        Raises:
            ServingError: A step failed for good. If the server knows no such name, it says
                which names there are, where `target` tells what was meant.
        """
        if self.closed:
            raise ValueError("the client is closed; make a new one")
        deadline = Deadline(timeout)
        if self._slots is None:
            return self._explained(flow, deadline, target)
        if not self._slots.acquire(blocking=False):
            flow.close()
            raise TooManyInFlight(
                f"{self._max_in_flight} calls are in flight already (max_in_flight); "
                "nothing was sent, try again later"
            )
        try:
            return self._explained(flow, deadline, target)
        finally:
            self._slots.release()

    def close(self) -> None:
        """Ends threads and sockets; may be called twice."""
        self.closed = True
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pool_born_in == generation():
            pool.shutdown(wait=True, cancel_futures=True)
        self._transport.close()

    def _explained(self, flow: Flow[T], deadline: Deadline, target: Target | None) -> T:
        try:
            return self._drive(flow, deadline)
        except NAME_ERRORS as error:
            if target is None:
                raise
            better = self._drive(explanation(error, target), deadline)
            if better is None:
                raise
            raise better from error

    def _drive(self, flow: Flow[T], deadline: Deadline) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    if type(step) is PredictRequest:  # nearly every step is one
                        answer = self._send(step, deadline)
                    else:
                        answer = self._carry_out(step, deadline)
                except (ServingError, ValueError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    def _carry_out(self, step: Any, deadline: Deadline) -> Any:
        if isinstance(step, Many):
            return self._many(step, deadline)
        if isinstance(step, Quiet):
            timeout = min(max(deadline.remaining(), 1e-3), QUIET_TIMEOUT)
            return self._transport.send(step.request, self._next_address(), timeout)
        if isinstance(step, Sleep):
            time.sleep(max(0.0, min(step.seconds, deadline.remaining())))
            return None
        return self._send(step, deadline)

    def _next_address(self) -> int:
        self._turn += 1  # a lost update between threads only repeats an address
        return self._turn % len(self._addresses)

    def _send(self, request: Request, deadline: Deadline) -> Any:
        """One request with its tries."""
        attempts = Attempts(self._policy, self._budget, deadline)
        recorder = Recorder(self._hooks, self._transport.name, request) if self._hooks else None
        repeatable = request.operation != "reload_config"
        while True:
            index = self._next_address()
            address = self._addresses[index]
            try:
                remaining = deadline.remaining()
                if remaining <= 0:
                    raise deadline_error(request, address, deadline)
                reply = self._transport.send(request, index, attempts.next_timeout(remaining))
            except ServingError as error:
                pause = attempts.pause(error, repeatable=repeatable)
                if pause is None:
                    if recorder is not None:
                        recorder.done(address, attempts.count, None, error)
                    raise
                log.debug("try %d of %s failed: %s", attempts.count, request.operation, error)
            else:
                self._budget.earn()
                if recorder is not None:
                    recorder.done(address, attempts.count, reply, None)
                return reply
            time.sleep(pause)

    def _many(self, step: Many, deadline: Deadline) -> list[Any]:
        def attempt(request: Request) -> Any:
            try:
                return self._send(request, deadline)
            except ServingError as error:
                return error

        return list(self._executor().map(attempt, step.requests))

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            # Threads do not survive a fork; the child makes its own.
            if self._pool is None or self._pool_born_in != generation():
                self._pool = ThreadPoolExecutor(self._parallel, "shortlist-client")
                self._pool_born_in = generation()
            return self._pool
