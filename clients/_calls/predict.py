"""Flows that run any signature: predict, classify and regress."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shortlist.clients import errors
from shortlist.clients._arguments import mapping, shown, text, texts
from shortlist.clients._calls.call import Call, Flow
from shortlist.clients._calls.failures import without_advice
from shortlist.clients._calls.interfaces import missing
from shortlist.clients._codecs.requests import (
    ClassifyRequest,
    Input,
    Outputs,
    PredictRequest,
    RegressRequest,
    Target,
)
from shortlist.clients._codecs.values import is_array
from shortlist.clients.types import Classification, Metadata, Prediction, Signature

__all__ = ["classify", "predict", "regress"]


def predict(
    call: Call,
    inputs: Mapping[str, Any],
    *,
    signature: str,
    outputs: Sequence[str],
    arrays: bool | None,
) -> Flow[Prediction]:
    """Run any signature."""
    target, signature = call.target, text("signature", signature)
    inputs = mapping("inputs", inputs, example="{'x': [1.0]}")
    outputs = texts("outputs", outputs)
    if arrays is None:
        arrays = any(is_array(value) for value in inputs.values())

    def attempt(metadata: Metadata) -> Flow[Prediction]:
        request = _typed_request(metadata, inputs, target, signature, outputs)
        spec = metadata.signatures[signature]
        try:
            reply: Outputs = yield from call.send(request)
        except errors.InvalidRequest as error:
            if type(error) is errors.InvalidRequest:
                raise _with_inputs(error, spec) from error
            raise
        return _prediction(reply, spec, target, outputs, arrays=arrays)

    return (yield from call.informed(attempt))


def _prediction(
    reply: Outputs, spec: Signature, target: Target, outputs: Sequence[str], *, arrays: bool
) -> Prediction:
    names = list(outputs) or list(reply.tensors)
    missing = [name for name in names if name not in reply.tensors]
    if missing:
        raise errors.ProtocolError(f"the answer of {target} lacks the outputs {missing}")
    values = {}
    for name in names:
        tensor = reply.tensors[name]
        try:
            dtype = spec.outputs[name].dtype if name in spec.outputs else None
            value = tensor.array(dtype) if arrays else tensor.value()
            values[name] = _text(value, name, arrays=arrays)
        except (ValueError, IndexError, TypeError, OverflowError, RecursionError) as exc:
            raise errors.ProtocolError(f"output {name!r} of {target} is unreadable: {exc}") from exc
    return Prediction(outputs=values, model=target.model, version=reply.version)


def _with_inputs(error: errors.ServingError, signature: Signature) -> errors.InvalidRequest:
    inputs = ", ".join(f"{name}: {spec}" for name, spec in sorted(signature.inputs.items()))
    return errors.InvalidRequest(
        f"{without_advice(error)}; the inputs are {inputs}", received=error.received
    )


def _typed_request(
    metadata: Metadata,
    inputs: Mapping[str, Any],
    target: Target,
    signature: str,
    outputs: Sequence[str],
) -> PredictRequest:
    """Return the request with the element types that the signature declares."""
    spec = metadata.signatures.get(signature)
    if spec is None:
        raise missing(target, metadata.signatures, signature)
    for what, names, known in (("input", inputs, spec.inputs), ("output", outputs, spec.outputs)):
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(
                f"signature {signature!r} of {target} has no {what} {unknown[0]!r}; "
                f"it has: {', '.join(sorted(known))}"
            )
    return PredictRequest(
        target=target,
        signature=signature,
        inputs={name: Input(value, spec.inputs[name].dtype) for name, value in inputs.items()},
        outputs=tuple(outputs),
        only_output=next(iter(spec.outputs)) if len(spec.outputs) == 1 else None,
    )


def _text(value: Any, name: str, *, arrays: bool) -> Any:
    """Return bytes as `str`, unless the name ends in `_bytes` or not all of them are UTF-8."""
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


def _checked(examples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if isinstance(examples, Mapping) or not isinstance(examples, Iterable):
        raise ValueError(f"examples takes a list of mappings, got {shown(examples)}")
    return [mapping("an example", example, example="{'x': 1.0}") for example in examples]


def classify(
    call: Call,
    examples: Sequence[Mapping[str, Any]],
    *,
    context: Mapping[str, Any] | None,
    signature: str | None,
) -> Flow[list[Classification]]:
    """Return the classes of each example."""
    request = ClassifyRequest(
        target=call.target, signature=signature, examples=_checked(examples), context=context
    )
    return call.send(request)


def regress(
    call: Call,
    examples: Sequence[Mapping[str, Any]],
    *,
    context: Mapping[str, Any] | None,
    signature: str | None,
) -> Flow[list[float]]:
    """Return the value of each example."""
    request = RegressRequest(
        target=call.target, signature=signature, examples=_checked(examples), context=context
    )
    return call.send(request)
