"""One call: its requests with retries, deadline, hooks and limits, without input or output.

A flow is a generator: it yields steps and gets their answers sent back, or their errors thrown in.
The engines only carry out the steps, so that all clients behave identically.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from shortlist.clients._arguments import seconds, shown
from shortlist.clients._calls.failures import too_late
from shortlist.clients._calls.interfaces import Ways
from shortlist.clients._calls.retry import Attempts, Deadline, RetryBudget, RetryPolicy
from shortlist.clients._calls.waiting import WaitingCalls
from shortlist.clients._codecs.requests import MetadataRequest, Outputs, Request, Target
from shortlist.clients.connection import Limits
from shortlist.clients.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LabelNotFound,
    Overloaded,
    ProtocolError,
    ServableNotFound,
    ServingError,
    SignatureNotFound,
    TooManyInFlight,
    Unsupported,
    WrongPort,
)
from shortlist.clients.hooks import CallEvent, Hook, hand_on, notify, takes_exchanges
from shortlist.clients.interface import RetrievalInterface
from shortlist.clients.split import Split
from shortlist.clients.types import Metadata

__all__ = ["Call", "Caller", "Flow", "Gather", "Send", "Sleep", "Spawn", "Step", "may_be_unfit"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_UNFIT: Final = ("HTTP 400", "INVALID_ARGUMENT")
_SHORT: Final = 0.2  # of a call's time, for its last try
_QUIET_TIMEOUT: Final = 5.0  # seconds, for a request of `Call.ask`
_MAX_REMEMBERED: Final = 256  # servables, so that a client that walks through versions stays small


@final
@dataclass(slots=True)
class Send:
    """Send a request once; answered by what the transport returns.

    Attributes:
        request: The request.
        address: Index of the server in the transport's addresses.
        timeout: Limit in seconds; None for no limit.
    """

    request: Request
    address: int
    timeout: float | None


@dataclass(slots=True)
class Sleep:
    """Pause for some seconds, or until `waiting` wakes the call.

    Attributes:
        seconds: The longest pause.
        waiting: Where to wait for a place at the server; `None` to sleep.
        again: The call has waited for a place already.
    """

    seconds: float
    waiting: WaitingCalls | None = None
    again: bool = False


@dataclass(slots=True)
class Gather:
    """Run flows concurrently; answered by their results or errors in order."""

    flows: "Sequence[Flow[Any]]"


@dataclass(slots=True)
class Spawn:
    """Run a flow in the background, unless too many run; answered at once by `None`.

    No caller gets its result or error.
    """

    flow: "Flow[Any]"


Step = Send | Sleep | Gather | Spawn
Flow = Generator[Step, Any, T]


class Caller:
    """State that the calls of one client share; safe to use from several threads."""

    def __init__(
        self,
        addresses: Sequence[str],
        transport: str,
        *,
        model: str,
        timeout: float,
        retry: RetryPolicy | None,
        hooks: Sequence[Hook],
        limits: Limits | None,
        interface: RetrievalInterface | None = None,
    ) -> None:
        if interface is not None and not isinstance(interface, RetrievalInterface):
            raise ValueError(
                f"interface takes a RetrievalInterface, got {shown(interface)}; use "
                "RetrievalInterface(query='input_1', ids='output_2', scores='output_1')"
            )
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ValueError(
                f"retry takes a RetryPolicy, got {shown(retry)}; for no retries use "
                "RetryPolicy(max_attempts=1)"
            )
        if limits is not None and not isinstance(limits, Limits):
            raise ValueError(
                f"limits takes Limits, got {shown(limits)}; use Limits(max_in_flight=8)"
            )
        if not isinstance(hooks, Iterable) or not all(map(callable, hooks := tuple(hooks))):
            remedy = "; pass it in a list" if callable(hooks) else ""
            raise ValueError(f"hooks takes a list of functions, got {shown(hooks)}{remedy}")
        self.addresses = addresses
        self.transport = transport
        self.target = Target(model=model)
        self.timeout = seconds("timeout", timeout)
        self.policy = retry or RetryPolicy()
        self.budget = RetryBudget(self.policy)
        self.hooks = hooks
        self.exchange_hooks = tuple(filter(takes_exchanges, hooks))
        self.limits = limits or Limits()
        self.interface = interface
        self.metadata: dict[Target, Metadata] = {}
        self.ways: dict[Target, Ways] = {}  # according to `metadata`
        self.widths: dict[Target, int] = {}  # K of SERVING_DEFAULT if a call asked for more
        self.waiting = WaitingCalls()
        self.closed = False
        most = self.limits.max_in_flight
        self._slots = threading.Semaphore(most) if most is not None else None
        self._turn = 0

    def call(
        self,
        model: str | None,
        version: int | None,
        label: str | Split | None,
        timeout: float | None,
    ) -> "Call":
        """Start a call: check its target and start its deadline.

        Raises:
            ValueError: An argument is wrong, or the client is closed.
        """
        if self.closed:
            raise ValueError("the client is closed; create a new one")
        split = label if isinstance(label, Split) else None
        name = label.fallback if isinstance(label, Split) else label
        target = self.target
        if model is not None or version is not None or name is not None:
            model = target.model if model is None else model
            target = Target(model=model, version=version, label=name)
        return Call(self, target, split, Deadline(self.timeout if timeout is None else timeout))

    def next_address(self) -> int:
        """Return the index of the server whose turn it is."""
        self._turn += 1  # a lost update between threads only repeats an address
        return self._turn % len(self.addresses)

    def limited(self, flow: Flow[T]) -> Flow[T]:
        """Return the flow within `max_in_flight`; it raises `TooManyInFlight` beyond."""
        return flow if self._slots is None else self._limited(flow, self._slots)

    def _limited(self, flow: Flow[T], slots: threading.Semaphore) -> Flow[T]:
        if not slots.acquire(blocking=False):
            flow.close()
            raise TooManyInFlight(
                f"{self.limits.max_in_flight} calls are in flight already (max_in_flight); "
                "nothing was sent, try again later"
            )
        try:
            return (yield from flow)
        finally:
            slots.release()


class Call:
    """One call of a client's method: a target and a deadline that its requests share."""

    __slots__ = ("caller", "deadline", "explains", "shadow", "split", "target")

    def __init__(
        self, caller: Caller, target: Target, split: Split | None, deadline: Deadline
    ) -> None:
        self.caller = caller
        self.target = target
        self.split = split
        self.deadline = deadline
        self.explains = True
        self.shadow = False

    def with_label(self, label: str) -> "Call":
        """Return the same call to another label, within the same deadline."""
        target = Target(model=self.target.model, label=label)
        return Call(self.caller, target, None, self.deadline)

    def shadowing(self, label: str) -> "Call":
        """Return a copy of the call to another label; it is tried once, in its own time."""
        caller = self.caller
        call = Call(caller, self.with_label(label).target, None, Deadline(caller.timeout))
        call.shadow = True
        return call

    def send(self, request: Request) -> Flow[Any]:
        """Return the answer to a request, tried again as the retry policy says."""
        if self.shadow:
            return (yield from self._send_shadow(request))
        caller, waiting = self.caller, self.caller.waiting
        wakes = waiting.wakes
        attempts = Attempts(caller.policy, caller.budget, self.deadline)
        recorder = _Recorder(caller, request) if caller.hooks else None
        last: ServingError | None = None
        waited = bool(wakes)
        if waited:
            yield Sleep(attempts.turn(), waiting)
        while True:
            index = caller.next_address()
            try:
                remaining = self.deadline.remaining()
                if remaining <= 0:
                    address, timeout = caller.addresses[index], self.deadline.timeout
                    # A pause may end late; what failed before it tells more than the time.
                    raise last or too_late(request=request, address=address, timeout=timeout)
                reply = yield Send(request, index, attempts.next_timeout(remaining))
            except ServingError as error:
                refused = isinstance(error, Overloaded)
                if wakes and not refused:
                    waiting.wake_one()
                pause = attempts.pause(error, repeatable=request.operation != "reload_config")
                if pause is None:
                    final = error
                    short = remaining < _SHORT * self.deadline.timeout
                    if last and short and isinstance(error, DeadlineExceeded):
                        final = last  # tells more than that no time was left
                    if recorder is not None:
                        recorder.done(index, attempts.count, None, final)
                    raise final from final.__cause__
                last = error
                log.debug("try %d of %s failed: %s", attempts.count, request.operation, error)
            else:
                if wakes:
                    waiting.wake_one()
                caller.budget.earn()
                if recorder is not None:
                    recorder.done(index, attempts.count, reply, None)
                return reply
            if refused:
                yield Sleep(pause, waiting, again=waited)
                waited = True
            else:
                yield Sleep(pause)

    def _send_shadow(self, request: Request) -> Flow[Any]:
        recorder = _Recorder(self.caller, request)
        index = self.caller.next_address()
        reply = yield Send(request, index, max(self.deadline.remaining(), 1e-3))
        recorder.done(index, 1, reply, None, shadow=True)
        return reply

    def send_all(self, requests: Sequence[Request]) -> Flow[list[Any]]:
        """Return the answers to requests that are sent concurrently.

        Raises:
            ServingError: The first error, once all have ended.
        """
        if len(requests) == 1:
            return [(yield from self.send(requests[0]))]
        replies: list[Any] = yield Gather([self.send(request) for request in requests])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def ask(self, request: Request) -> Flow[Any]:
        """Send a request once, without hooks, and return the answer or the error."""
        timeout = min(max(self.deadline.remaining(), 1e-3), _QUIET_TIMEOUT)
        try:
            return (yield Send(request, self.caller.next_address(), timeout))
        except ServingError as error:
            return error

    def metadata(self) -> Flow[tuple[Metadata, bool]]:
        """Return the target's metadata, and whether it was fetched just now."""
        known = self.caller.metadata.get(self.target)
        if known is not None:
            return known, False
        fresh: Metadata = yield from self.send(MetadataRequest(target=self.target))
        if len(self.caller.metadata) >= _MAX_REMEMBERED:
            self.caller.metadata.clear()
            self.caller.ways.clear()
        self.caller.metadata[self.target] = fresh
        return fresh, True

    def forget_metadata(self) -> None:
        """Forget the target's metadata: the newest version may have other signatures."""
        self.caller.metadata.pop(self.target, None)
        self.caller.ways.pop(self.target, None)

    @property
    def usual(self) -> bool:
        """Whether the servable is, as far as the client knows, asked as the contract says."""
        ways = self.caller.ways
        if self.caller.interface is not None:
            return False
        return not ways or self.target not in ways or ways[self.target].usual

    def ways(self, metadata: Metadata) -> Ways:
        """Return the ways to ask the servable.

        Raises:
            SignatureNotFound: It cannot be asked, or in several ways.
        """
        ways = self.caller.ways.get(self.target)
        if ways is None:
            ways = Ways(self.target, metadata, self.caller.interface)
            self.caller.ways[self.target] = ways
        return ways

    def informed(
        self, attempt: Callable[[Metadata], Flow[T]], *, failed: ServingError | None = None
    ) -> Flow[T]:
        """Run a flow that depends on the metadata, again if it fails because they are outdated.

        Args:
            attempt: The flow.
            failed: Error of a request that was made without metadata; raised if they cannot be
                fetched.
        """
        if failed is not None:
            self.forget_metadata()
        try:
            metadata, fresh = yield from self.metadata()
        except ServingError as error:
            if failed is None or error.retryable:
                raise
            raise failed from error
        while True:
            try:
                return (yield from attempt(metadata))
            except (InvalidRequest, ProtocolError, ServableNotFound, Unsupported, ValueError):
                self.forget_metadata()
                if fresh:
                    raise
                previous = metadata
                metadata, fresh = yield from self.metadata()
                if metadata == previous:
                    raise


def may_be_unfit(error: ServingError) -> bool:
    """Return whether a servable with another interface may answer a request so."""
    if error.received is None:  # an answer, though not the expected one
        return isinstance(error, ProtocolError) and not isinstance(error, WrongPort)
    if isinstance(error, LabelNotFound):
        return False
    return isinstance(error, SignatureNotFound) or error.received.startswith(_UNFIT)


class _Recorder:
    """Times one request and reports it to the hooks."""

    __slots__ = ("_caller", "_clock", "_request", "_started")

    def __init__(self, caller: Caller, request: Request) -> None:
        self._caller = caller
        self._request = request
        self._started = time.time()
        self._clock = time.perf_counter()

    def done(
        self,
        address: int,
        attempts: int,
        reply: Any,
        error: ServingError | None,
        *,
        shadow: bool = False,
    ) -> None:
        caller = self._caller
        target = self._request.target
        answered = reply.version if isinstance(reply, Outputs | Metadata) else None
        event = CallEvent(
            operation=self._request.operation,
            transport=caller.transport,
            address=caller.addresses[address],
            model=target.model if target else None,
            version=answered or (target.version if target else None),
            label=target.label if target else None,
            status="OK" if error is None else type(error).__name__,
            started=self._started,
            seconds=time.perf_counter() - self._clock,
            attempts=attempts,
            shadow=shadow,
        )
        if not shadow:
            notify(caller.hooks, event)
        if error is None and caller.exchange_hooks:
            hand_on(caller.exchange_hooks, event, self._request, reply)
