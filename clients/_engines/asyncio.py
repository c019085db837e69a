"""Carries out flows with asyncio; `_engine` does the same with threads."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from shortlist.clients._calls.flows import NAME_ERRORS, Flow, Many, Quiet, Sleep, explanation
from shortlist.clients._calls.retry import Attempts, Deadline, RetryBudget, RetryPolicy
from shortlist.clients._codecs.requests import PredictRequest, Request, Target
from shortlist.clients._engines.blocking import QUIET_TIMEOUT, Recorder, deadline_error
from shortlist.clients.errors import ServingError, TooManyInFlight
from shortlist.clients.hooks import Hook

__all__ = ["AsyncEngine", "AsyncTransport"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class AsyncTransport(Protocol):
    """Sends one request once; see `shortlist.clients._engines.blocking.Transport`."""

    name: str

    def addresses(self) -> Sequence[str]:
        """See `Transport`."""
        ...

    async def send(self, request: Request, address: int, timeout: float | None) -> Any:
        """See `Transport`."""
        ...

    async def close(self) -> None:
        """See `Transport`."""
        ...


class AsyncEngine:
    """Runs flows over one transport, for one event loop."""

    def __init__(
        self,
        transport: AsyncTransport,
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
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._parallel = parallel
        self._turn = 0
        self.closed = False

    async def run(self, flow: Flow[T], timeout: float, target: Target | None = None) -> T:
        """Result of the flow, within `timeout` seconds.

        Raises:
            ServingError: A step failed for good. If the server knows no such name, it says
                which names there are, where `target` tells what was meant.
        """
        if self.closed:
            raise ValueError("the client is closed; make a new one")
        deadline = Deadline(timeout)
        if self._max_in_flight is not None and self._in_flight >= self._max_in_flight:
            flow.close()
            raise TooManyInFlight(
                f"{self._max_in_flight} calls are in flight already (max_in_flight); "
                "nothing was sent, try again later"
            )
        self._in_flight += 1
        try:
            return await self._explained(flow, deadline, target)
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        """Ends the connections; may be called twice."""
        self.closed = True
        await self._transport.close()

    async def _explained(self, flow: Flow[T], deadline: Deadline, target: Target | None) -> T:
        try:
            return await self._drive(flow, deadline)
        except NAME_ERRORS as error:
            if target is None:
                raise
            better = await self._drive(explanation(error, target), deadline)
            if better is None:
                raise
            raise better from error

    async def _drive(self, flow: Flow[T], deadline: Deadline) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    if type(step) is PredictRequest:  # nearly every step is one
                        answer = await self._send(step, deadline)
                    else:
                        answer = await self._carry_out(step, deadline)
                except (ServingError, ValueError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    async def _carry_out(self, step: Any, deadline: Deadline) -> Any:
        if isinstance(step, Many):
            return await self._many(step, deadline)
        if isinstance(step, Quiet):
            timeout = min(max(deadline.remaining(), 1e-3), QUIET_TIMEOUT)
            return await self._transport.send(step.request, self._next_address(), timeout)
        if isinstance(step, Sleep):
            await asyncio.sleep(max(0.0, min(step.seconds, deadline.remaining())))
            return None
        return await self._send(step, deadline)

    def _next_address(self) -> int:
        self._turn += 1
        return self._turn % len(self._addresses)

    async def _send(self, request: Request, deadline: Deadline) -> Any:
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
                reply = await self._transport.send(request, index, attempts.next_timeout(remaining))
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
            await asyncio.sleep(pause)

    async def _many(self, step: Many, deadline: Deadline) -> list[Any]:
        gate = asyncio.Semaphore(self._parallel)

        async def attempt(request: Request) -> Any:
            async with gate:
                try:
                    return await self._send(request, deadline)
                except ServingError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(request)) for request in step.requests]
        return [task.result() for task in tasks]
