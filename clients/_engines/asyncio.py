"""Carries out flows with asyncio."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from shortlist.clients._calls.call import Flow, Gather, Sleep, Spawn, Step
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.background import MAX_SPAWNED
from shortlist.clients.errors import ServingError

__all__ = ["AsyncEngine", "AsyncTransport"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class AsyncTransport(Protocol):
    """The asynchronous counterpart of `Transport`."""

    async def send(self, request: Request, address: int, timeout: float | None) -> Any:
        """Return the answer of the server with that index; errors as in `Transport.send`."""
        ...

    async def close(self) -> None:
        """Close every connection; may be called twice."""
        ...


class AsyncEngine:
    """Runs flows over one transport, for one event loop."""

    def __init__(self, transport: AsyncTransport, *, parallel: int) -> None:
        self.transport = transport
        self._parallel = parallel
        self._spawned: set[asyncio.Task[None]] = set()

    async def run(self, flow: Flow[T]) -> T:
        """Return the result of a flow, or raise its error."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = await self._carry_out(step)
                except (ServingError, ValueError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        for task in (spawned := list(self._spawned)):
            task.cancel()
        await asyncio.gather(*spawned, return_exceptions=True)
        await self.transport.close()

    async def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Gather):
            return await self._gather(step.flows)
        if isinstance(step, Sleep):
            return await self._sleep(step)
        if isinstance(step, Spawn):
            return self._spawn(step.flow)
        return await self.transport.send(step.request, step.address, step.timeout)

    def _spawn(self, flow: Flow[Any]) -> None:
        if len(self._spawned) >= MAX_SPAWNED:
            flow.close()
            return
        task = asyncio.get_running_loop().create_task(self._ignored(flow))
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    async def _ignored(self, flow: Flow[Any]) -> None:
        try:
            await self.run(flow)
        except Exception as error:
            log.debug("a request in the background failed: %s", error)

    async def _sleep(self, step: Sleep) -> None:
        if step.waiting is None:
            return await asyncio.sleep(step.seconds)
        woken = asyncio.Event()
        step.waiting.join(woken.set, again=step.again)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), step.seconds)
        finally:
            step.waiting.leave(woken.set)

    async def _gather(self, flows: Sequence[Flow[Any]]) -> list[Any]:
        gate = asyncio.Semaphore(self._parallel)

        async def attempt(flow: Flow[Any]) -> Any:
            async with gate:
                try:
                    return await self.run(flow)
                except (ServingError, ValueError) as error:
                    return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(flow)) for flow in flows]
        return [task.result() for task in tasks]
