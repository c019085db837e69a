"""Events about calls, for measurements."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

__all__ = ["CallEvent", "ExchangeHook", "Hook", "hand_on", "notify", "takes_exchanges"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """One request with all its tries. A large batch is several requests.

    Contains no user ids, so that it may be logged and exported.

    Attributes:
        operation: `retrieve`, `similar`, `embed`, `rate`, `predict`, `classify`, `regress`,
            `status`, `metadata` or `reload_config`.
        transport: `rest`, `grpc` or `local`.
        address: Address of the last try.
        model: Model name; `None` for `reload_config`.
        version: Version that answered, or of the request; `None` if unknown.
        label: Version label of the request.
        status: `OK`, or the name of the error's class, such as `Overloaded`.
        started: Start in seconds since the epoch.
        seconds: Duration from the first try to the last answer, pauses included.
        attempts: Number of tries.
        shadow: Whether it is a copy of a request for another label, whose answer the caller does
            not get; see `Split.shadow`. Only `ExchangeHook`s are told of those.
    """

    operation: str
    transport: str
    address: str
    model: str | None
    version: int | None
    label: str | None
    status: str
    started: float
    seconds: float
    attempts: int
    shadow: bool = False


Hook = Callable[[CallEvent], None]


class ExchangeHook(Protocol):
    """A hook that also gets the requests and answers themselves, which contain user ids."""

    def __call__(self, event: CallEvent) -> None:
        """Take the event of a request, as every hook."""
        ...

    def exchange(self, event: CallEvent, request: Any, reply: Any) -> None:
        """Take a request in the client's own form and its answer, unless it failed.

        Called in the call's own thread, which then goes on: keep neither, as the caller may
        change what is in them.
        """
        ...


def takes_exchanges(hook: Hook) -> TypeGuard[ExchangeHook]:
    """Return whether a hook is an `ExchangeHook`."""
    return callable(getattr(hook, "exchange", None))


def notify(hooks: Sequence[Hook], event: CallEvent) -> None:
    """Call each hook; a hook that fails is logged and does not fail the call."""
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            log.exception("the hook %r failed on a call to %s", hook, event.model)


def hand_on(hooks: Sequence[ExchangeHook], event: CallEvent, request: Any, reply: Any) -> None:
    """Give a request and its answer to each hook; one that fails is logged."""
    for hook in hooks:
        try:
            hook.exchange(event, request, reply)
        except Exception:
            log.exception("the hook %r failed on an answer of %s", hook, event.model)
