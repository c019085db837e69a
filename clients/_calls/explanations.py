"""Errors about unknown names, extended by the names that the server has."""

from typing import Final, TypeVar

from shortlist.clients import contract
from shortlist.clients._calls.call import Call, Flow
from shortlist.clients._calls.failures import without_advice
from shortlist.clients._codecs.requests import MetadataRequest, StatusRequest, Target
from shortlist.clients.errors import (
    LabelNotFound,
    MissingOp,
    ServableNotFound,
    ServingError,
    SignatureNotFound,
)
from shortlist.clients.types import Metadata, ModelStatus

__all__ = ["explained"]

T = TypeVar("T")

_NAME_ERRORS: Final = (ServableNotFound, LabelNotFound, SignatureNotFound)


def explained(call: Call, flow: Flow[T]) -> Flow[T]:
    """Run a call's flow; an error about a name also lists the names that exist."""
    try:
        return (yield from call.caller.limited(flow))
    except _NAME_ERRORS as error:
        if isinstance(error, MissingOp) or not call.explains:
            raise
        explanation = yield from _explanation(call, error)
        if explanation is None:
            raise
        raise explanation from error


def _explanation(call: Call, error: ServingError) -> Flow[ServingError | None]:
    """Return a more detailed error; None if there is nothing to add."""
    kind, text = type(error), without_advice(error)
    if isinstance(error, SignatureNotFound):
        if error.received is None:  # it comes from the metadata already
            return None
        metadata = yield from call.ask(MetadataRequest(target=call.target))
        if not isinstance(metadata, Metadata):
            return None
        # Names with two underscores are TensorFlow's internal ones.
        names = sorted(name for name in metadata.signatures if not name.startswith("__"))
        return kind(f"{text}; it has: {', '.join(names)}", received=error.received)
    model = call.target.model
    status = yield from call.ask(StatusRequest(target=Target(model=model)))
    if isinstance(status, ModelStatus):
        versions = ", ".join(f"{entry.version} {entry.state.name}" for entry in status.versions)
        return kind(f"{text}; its versions: {versions or 'none'}", received=error.received)
    if not isinstance(status, ServableNotFound):
        return None
    others = yield from _siblings(call)
    listed = (
        f"it serves: {', '.join(others)}"
        if others
        else f"nor any of {', '.join(_usual_names(model))}; the server's log names its models"
    )
    if not isinstance(error, ServableNotFound):
        text = f"no servable {model!r}: {error.received}"
    return ServableNotFound(f"{text}; {listed}", received=error.received)


def _siblings(call: Call) -> Flow[list[str]]:
    """Return the servables that the server has under the names that Shortlist uses.

    TensorFlow Serving cannot list its models, so the names are tried.
    """
    served = []
    for name in _usual_names(call.target.model):
        status = yield from call.ask(StatusRequest(target=Target(model=name)))
        if isinstance(status, ModelStatus):
            served.append(name)
        elif not isinstance(status, ServableNotFound):
            break  # the server is down; more requests would only take time
    return served


def _usual_names(model: str) -> list[str]:
    """Return the names other than `model` that its servables and the default ones may have."""
    bases = [contract.DEFAULT_MODEL]
    for index in contract.INDEXES:
        if model.endswith(f"_{index}"):
            bases.insert(0, model.removesuffix(f"_{index}"))
    names = [contract.servable_name(base, index) for base in bases for index in contract.INDEXES]
    return [name for name in dict.fromkeys([*names, *bases]) if name != model]
