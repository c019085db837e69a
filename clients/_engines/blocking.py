"""Carries out flows with threads."""

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from shortlist.clients._calls.call import Flow, Gather, Send, Sleep, Spawn
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.background import Background
from shortlist.clients._engines.threads import Threads
from shortlist.clients.errors import ServingError

__all__ = ["Engine", "Transport"]

T = TypeVar("T")


class Transport(Protocol):
    """Sends single requests."""

    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        """Return the answer of the server with that index.

        Raises:
            ServingError: The server did not answer, or reported a failure.
            ValueError: The request cannot be sent at all.
        """
        ...

    def close(self) -> None:
        """Close every connection; may be called twice."""
        ...


class Engine:
    """Runs flows over one transport; safe to share between threads."""

    def __init__(self, transport: Transport, *, parallel: int) -> None:
        self.transport = transport
        self._threads = Threads(parallel)
        self._background = Background()

    def run(self, flow: Flow[T]) -> T:
        """Return the result of a flow, or raise its error."""
        send = self.transport.send
        try:
            step = next(flow)
            while True:
                try:
                    if type(step) is Send:  # nearly every step
                        answer = send(step.request, step.address, step.timeout)
                    else:
                        answer = self._carry_out(step)
                except (ServingError, ValueError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    def close(self) -> None:
        """End threads and connections; may be called twice."""
        self._threads.close()
        self._background.close()
        self.transport.close()

    def _carry_out(self, step: Sleep | Gather | Spawn) -> Any:
        if isinstance(step, Gather):
            return self._gather(step.flows)
        if isinstance(step, Spawn):
            return self._background.start(self.run, step.flow)
        if step.waiting is None:
            return time.sleep(step.seconds)
        woken = threading.Event()
        step.waiting.join(woken.set, again=step.again)
        try:
            woken.wait(step.seconds)
        finally:
            step.waiting.leave(woken.set)

    def _gather(self, flows: Sequence[Flow[Any]]) -> list[Any]:
        def attempt(flow: Flow[Any]) -> Any:
            try:
                return self.run(flow)
            except (ServingError, ValueError) as error:
                return error

        return list(self._threads.pool().map(attempt, flows))
