"""Events about calls, for measurements."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["CallEvent", "Hook", "notify"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """One request with all its tries. A large batch is several requests.

    Contains no user ids, so that it may be logged and exported.

    Attributes:
        operation: `retrieve`, `similar`, `embed`, `rate`, `predict`, `classify`, `regress`,
            `status`, `metadata` or `reload_config`.
        transport: `rest` or `grpc`.
        address: Address of the last try.
        model: Model name; `None` for `reload_config`.
        version: Version that answered, or of the request; `None` if unknown.
        label: Version label of the request.
        status: `OK`, or the name of the error's class, such as `Overloaded`.
        started: Start in seconds since the epoch.
        seconds: Duration from the first try to the last answer, pauses included.
        attempts: Number of tries.
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


Hook = Callable[[CallEvent], None]


def notify(hooks: Sequence[Hook], event: CallEvent) -> None:
    """Call each hook; a hook that fails is logged and does not fail the call."""
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            log.exception("the hook %r failed on a call to %s", hook, event.model)
