"""Calls that wait for their message, or for their client to take the answer.

grpcio gives each call a thread before its message has arrived. So a call may wait only for a
limited time, and if too many wait, a new one takes the place of another.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import grpc

__all__ = ["SEATS", "WaitingRoom"]

SEATS: Final = 256  # threads that wait for messages, at most
_ANSWER_SECONDS: Final = 60.0
_STOPPING_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.5


class WaitingRoom:
    """Bounds the calls that wait for their clients, in number and time.

    Args:
        message_seconds: Time limit for the message of a call.
        on_cancel: Called with the reason for each call that is cancelled.
        seats: Calls that may wait for their message at the same time.
        answer_seconds: Time limit for taking an answer.
    """

    def __init__(
        self,
        message_seconds: float,
        on_cancel: Callable[[str], None],
        *,
        seats: int = SEATS,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._message_seconds = message_seconds
        self._answer_seconds = answer_seconds
        self._on_cancel = on_cancel
        self._seats = seats
        self._lock = threading.Lock()
        # In order of age, as time of arrival by call.
        self._receiving: dict[grpc.ServicerContext, float] = {}
        self._sending: dict[grpc.ServicerContext, float] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="grpc-waiting", daemon=True).start()

    def receive(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Return the message of a call.

        Raises:
            StopIteration: The client ended the call without a message.
            grpc.RpcError: The call was cancelled.
        """
        with self._lock:
            self._receiving[context] = time.monotonic()
            victim = self._victim() if len(self._receiving) > self._seats else None
        if victim is not None:
            self._cancel(victim, "room")
        try:
            return next(requests)
        finally:
            with self._lock:
                self._receiving.pop(context, None)

    def send(self, context: grpc.ServicerContext, on_end: Callable[[], None]) -> None:
        """Watch a call that has been answered.

        Args:
            context: Context of the call.
            on_end: Called when the answer has left the process, or will never do so.
        """
        with self._lock:
            self._sending[context] = time.monotonic()

        def ended() -> None:
            with self._lock:
                self._sending.pop(context, None)
            on_end()

        if not context.add_callback(ended):
            ended()

    def stop(self) -> None:
        """Stop waiting for messages that do not come at once."""
        self._message_seconds = min(self._message_seconds, _STOPPING_SECONDS)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()

    def _victim(self) -> grpc.ServicerContext:
        """Take out the oldest call of the connection that has most."""
        peers = {context: context.peer() for context in self._receiving}
        calls = Counter(peers.values())
        victim = max(self._receiving, key=lambda context: calls[peers[context]])
        del self._receiving[victim]
        return victim

    def _watch(self) -> None:
        while not self._ended.wait(min(_CHECK_SECONDS, self._message_seconds / 2)):
            now = time.monotonic()
            with self._lock:
                silent = _older(self._receiving, now - self._message_seconds)
                unread = _older(self._sending, now - self._answer_seconds)
            for context in silent:
                self._cancel(context, "no message")
            for context in unread:
                self._cancel(context, "answer not read")

    def _cancel(self, context: grpc.ServicerContext, reason: str) -> None:
        self._on_cancel(reason)
        context.cancel()


def _older(calls: dict[grpc.ServicerContext, float], limit: float) -> list[grpc.ServicerContext]:
    """Take out the calls that are older than `limit`."""
    found = []
    for context, since in calls.items():
        if since > limit:
            break
        found.append(context)
    for context in found:
        del calls[context]
    return found
