"""Calls that the server had no room for, which continue as others end."""

from collections import deque
from collections.abc import Callable

__all__ = ["WaitingCalls"]

Wake = Callable[[], None]


class WaitingCalls:
    """The waiting calls of one client, oldest first; safe to share between threads.

    Each call that ends has freed a place at the server, so it wakes the one that waits longest. As
    new calls wait behind the others, the client sends as many requests at a time as the server
    takes, in order, instead of asking again and again. Each wait ends by itself, too: other
    clients may have left.

    Attributes:
        wakes: Functions that wake the waiting calls; seldom any.
    """

    __slots__ = ("wakes",)

    def __init__(self) -> None:
        self.wakes: deque[Wake] = deque()

    def join(self, wake: Wake, *, again: bool) -> None:
        """Begin to wait; before all others if the call has waited already."""
        if again:
            self.wakes.appendleft(wake)
        else:
            self.wakes.append(wake)

    def leave(self, wake: Wake) -> None:
        """End a wait, woken or not."""
        try:
            self.wakes.remove(wake)
        except ValueError:
            return

    def wake_one(self) -> None:
        """Wake the call that waits longest, if there is one."""
        try:
            wake = self.wakes.popleft()
        except IndexError:
            return
        wake()
