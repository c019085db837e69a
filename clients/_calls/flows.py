"""What each call asks and how it reads the answers, without any input or output.

A flow is a generator: it yields steps (a request, several at once, a pause) and is sent
their answers, or has their error thrown in. The clients, blocking or not, only carry
the steps out, so that all of them behave alike.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shortlist.clients import contract, errors
from shortlist.clients._codecs.requests import Input as In
from shortlist.clients._codecs.requests import (
    MetadataRequest,
    Outputs,
    PredictRequest,
    Request,
    StatusRequest,
    Target,
)
from shortlist.clients.types import Metadata, ModelStatus, Prediction, State, VersionStatus

__all__ = [
    "NAME_ERRORS",
    "Flow",
    "Many",
    "Quiet",
    "Sleep",
    "explanation",
    "predict",
    "single",
    "wait",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Many:
    """Requests to send side by side; answered by a list of answers and errors in order."""

    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Quiet:
    """A request on the side: tried once, seen by no hook."""

    request: Request


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause."""

    seconds: float


Step = Request | Many | Quiet | Sleep
Flow = Generator[Step, Any, T]


def single(request: Request) -> Flow[Any]:
    """One request, its answer as it is."""
    return (yield request)


# --- explaining errors ----------------------------------------------------------


# Errors about names, to be told together with the names that there are.
NAME_ERRORS = (errors.ServableNotFound, errors.LabelNotFound, errors.SignatureNotFound)


def explanation(error: errors.ServingError, target: Target) -> Flow[errors.ServingError | None]:
    """The error with a list of what the server has; None where there is nothing to add."""
    if isinstance(error, errors.MissingOp):
        return None
    if isinstance(error, errors.SignatureNotFound):
        metadata = yield from _ask(MetadataRequest(target=target))
        if not isinstance(metadata, Metadata):
            return None
        # Names with two underscores are TensorFlow's own business.
        names = ", ".join(sorted(n for n in metadata.signatures if not n.startswith("__")))
        return _extended(error, f"it has: {names}")
    status = yield from _ask(StatusRequest(target=Target(model=target.model)))
    if isinstance(status, ModelStatus):
        found = ", ".join(f"{v.version} {v.state.name}" for v in status.versions) or "none"
        return _extended(error, f"its versions: {found}")
    if not isinstance(status, errors.ServableNotFound):
        return None
    others = yield from _siblings(target.model)
    listed = f"it serves: {', '.join(others)}" if others else "none of the usual names is there"
    unknown = errors.ServableNotFound(
        f"no servable {target.model!r}: {error.received}", received=error.received
    )
    return _extended(error if isinstance(error, errors.ServableNotFound) else unknown, listed)


def _extended(error: errors.ServingError, more: str) -> errors.ServingError:
    return type(error)(f"{error} ({more})", received=error.received)


def _ask(request: Request) -> Generator[Step, Any, Any]:
    """The answer, or the error as a value."""
    try:
        return (yield Quiet(request))
    except errors.ServingError as error:
        return error


def _siblings(model: str) -> Generator[Step, Any, list[str]]:
    """Servables the server has among the names that Shortlist gives them.

    TensorFlow Serving cannot list its models, so the names are tried.
    """
    bases = [contract.DEFAULT_MODEL]
    for index in contract.INDEXES:
        if model.endswith(f"_{index}"):
            bases.insert(0, model.removesuffix(f"_{index}"))
    names = [contract.servable_name(base, index) for base in bases for index in contract.INDEXES]
    found = []
    for name in dict.fromkeys([*names, *bases]):
        if name != model:
            status = yield from _ask(StatusRequest(target=Target(model=name)))
            if isinstance(status, ModelStatus):
                found.append(name)
            elif not isinstance(status, errors.ServableNotFound):
                break  # the server is gone; further questions would only take time
    return found


# --- predict ----------------------------------------------------------------------


class SignatureCache:
    """Metadata of the servables a client has met, to give plain Python values their types."""

    def __init__(self) -> None:
        self._found: dict[Target, Metadata] = {}

    def get(self, target: Target) -> Generator[Step, Any, tuple[Metadata, bool]]:
        """The metadata, and whether it was fetched just now."""
        if (known := self._found.get(target)) is not None:
            return known, False
        fresh: Metadata = yield MetadataRequest(target=target)
        if len(self._found) >= 256:  # a client that walks through versions must not grow
            self._found.clear()
        self._found[target] = fresh
        return fresh, True

    def inputs(self, name: str, target: Target) -> Generator[Step, Any, frozenset[str]]:
        """Names of a signature's inputs.

        Raises:
            SignatureNotFound: The servable does not have it, not even when asked anew.
        """
        metadata, fresh = yield from self.get(target)
        if name not in metadata.signatures and not fresh:
            self.drop(target)
            metadata, fresh = yield from self.get(target)
        if name not in metadata.signatures:
            self.drop(target)
            raise errors.SignatureNotFound(
                f"{target} has no signature {name!r}, which this call needs; export the model "
                "anew, or ask for less (fewer k, no exclusions, no filter)"
            )
        return frozenset(metadata.signatures[name].inputs)

    def drop(self, target: Target) -> None:
        """Forgets one: the newest version may have another signature."""
        self._found.pop(target, None)


def predict(
    inputs: Mapping[str, Any],
    *,
    target: Target,
    signature: str,
    outputs: Sequence[str],
    arrays: bool,
    cache: SignatureCache,
) -> Flow[Prediction]:
    """Runs any signature."""
    metadata, fresh = yield from cache.get(target)
    while True:
        try:
            request = _typed_request(metadata, inputs, target, signature, outputs)
            reply: Outputs = yield request
        except (errors.InvalidRequest, errors.ServableNotFound, ValueError):
            cache.drop(target)
            if fresh:
                raise
            previous = metadata
            metadata, fresh = yield from cache.get(target)
            if metadata == previous:
                raise
        else:
            break
    specs = metadata.signatures[signature].outputs
    wanted = list(outputs) or list(reply.tensors)
    missing = [name for name in wanted if name not in reply.tensors]
    if missing:
        raise errors.ProtocolError(f"the answer of {target} lacks the outputs {missing}")
    values = {}
    for name in wanted:
        tensor = reply.tensors[name]
        try:
            dtype = specs[name].dtype if name in specs else None
            value = tensor.array(dtype) if arrays else tensor.value()
        except (ValueError, IndexError) as exc:
            raise errors.ProtocolError(f"output {name!r} of {target} is unreadable: {exc}") from exc
        values[name] = _text(value, name, arrays=arrays)
    return Prediction(outputs=values, model=target.model, version=reply.version)


def _typed_request(
    metadata: Metadata,
    inputs: Mapping[str, Any],
    target: Target,
    signature: str,
    outputs: Sequence[str],
) -> PredictRequest:
    """The request with the element types that the signature declares."""
    spec = metadata.signatures.get(signature)
    if spec is None:
        raise errors.SignatureNotFound(f"{target} has no signature {signature!r}")
    for what, given, known in (("input", inputs, spec.inputs), ("output", outputs, spec.outputs)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(
                f"signature {signature!r} of {target} has no {what} {unknown[0]!r}; "
                f"it has: {', '.join(sorted(known))}"
            )
    return PredictRequest(
        target=target,
        signature=signature,
        inputs={name: In(value, spec.inputs[name].dtype) for name, value in inputs.items()},
        outputs=tuple(outputs),
        only_output=next(iter(spec.outputs)) if len(spec.outputs) == 1 else None,
    )


def _text(value: Any, name: str, *, arrays: bool) -> Any:
    """Bytes as `str`, but for names that end in `_bytes` and tensors that are not all UTF-8."""
    wants_bytes = name.endswith("_bytes")
    try:
        if not arrays:
            return _converted(value, wants_bytes=wants_bytes)
        if value.dtype.kind in "OU":
            flat = [_converted(item, wants_bytes=wants_bytes) for item in value.ravel().tolist()]
            converted = value.astype(object).ravel()
            converted[:] = flat
            return converted.reshape(value.shape)
    except UnicodeDecodeError:
        pass
    return value


def _converted(value: Any, *, wants_bytes: bool) -> Any:
    if isinstance(value, list):
        if value and isinstance(value[0], int | float | complex):
            return value
        return [_converted(item, wants_bytes=wants_bytes) for item in value]
    if isinstance(value, bytes) and not wants_bytes:
        return value.decode()
    if isinstance(value, str) and wants_bytes:
        return value.encode()
    return value


# --- waiting -----------------------------------------------------------------------


def wait(target: Target, *, timeout: float, poll_interval: float) -> Flow[ModelStatus]:
    """Polls until the servable answers; see `wait_until_available` of the clients."""
    if not poll_interval > 0:
        raise ValueError(f"poll_interval must be positive, got {poll_interval!r}")
    deadline = time.monotonic() + timeout
    seen = "no answer yet"
    while True:
        status = yield from _ask(
            StatusRequest(target=Target(model=target.model, version=target.version))
        )
        if isinstance(status, ModelStatus):
            _raise_if_failed(target, status)
            seen = ", ".join(f"version {v.version} {v.state.name}" for v in status.versions)
            if status.available:
                if target.label is None:
                    return status
                # GetModelStatus ignores labels; metadata resolves them and runs nothing.
                probe = yield from _ask(MetadataRequest(target=target))
                if isinstance(probe, Metadata):
                    return status
                seen = f"{seen}; {probe}"
        elif isinstance(status, errors.Unauthenticated | errors.PermissionDenied):
            raise status
        else:
            seen = str(status)
        remaining = deadline - time.monotonic()
        if remaining <= poll_interval:
            raise errors.DeadlineExceeded(
                f"{target} did not become AVAILABLE within {timeout:g} s; last seen: {seen}"
            )
        yield Sleep(poll_interval)


def _raise_if_failed(target: Target, status: ModelStatus) -> None:
    def failed(entry: VersionStatus) -> bool:
        return entry.state is State.END and entry.error_message is not None

    if status.versions and all(failed(entry) for entry in status.versions):
        newest = max(status.versions, key=lambda entry: entry.version)
        raise errors.LoadFailed(
            f"{target}: version {newest.version} failed to load: {newest.error_code}: "
            f"{newest.error_message}; publish a new version, as the server tries none twice",
            received=newest.error_message,
        )
