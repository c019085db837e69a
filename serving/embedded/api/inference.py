"""Predict, GetModelMetadata and GetModelStatus, for both transports.

Checks, their order and all error messages follow TensorFlow Serving's
`servables/tensorflow/{predict_util,get_model_metadata_impl}.cc`. `api/examples.py` has the
calls that take examples.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy.typing as npt

from shortlist.clients.contract import SERVING_DEFAULT, K
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource, always_active
from shortlist.serving.embedded.api.limits import MemoryRoom, RequestLimits, RequestMemory
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.api.tensors import (
    Admit,
    MissingStringsError,
    TensorParseError,
    encode_tensor,
    encode_varint,
    parse_tensor,
)

__all__ = [
    "CLASSIFY_METHOD",
    "PREDICT_METHOD",
    "REGRESS_METHOD",
    "Call",
    "InferenceOptions",
    "acquire",
    "check_metadata_fields",
    "metadata",
    "metadata_response",
    "model_spec",
    "predict",
    "predict_arrays",
    "predict_exchange",
    "response_bytes",
    "status",
    "timed_run",
]

PREDICT_METHOD: Final = "tensorflow/serving/predict"
CLASSIFY_METHOD: Final = "tensorflow/serving/classify"
REGRESS_METHOD: Final = "tensorflow/serving/regress"

_FEW_RESULTS: Final = 1000  # are not worth counting
_STRING_BYTES: Final = 50  # of a candidate id, on average

_SIGNATURE_DEF: Final = "signature_def"
_SIGNATURE_DEF_MAP_URL: Final = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """Flags that change answers, and limits, for both transports.

    Attributes:
        check_method_names: `--enable_signature_method_name_check`.
        tensor_content: `--enable_serialization_as_tensor_content`.
        limits: Limits of one request.
        room: Memory of all requests.
    """

    check_method_names: bool = False
    tensor_content: bool = False
    limits: RequestLimits = field(default_factory=RequestLimits)
    room: MemoryRoom = field(default_factory=MemoryRoom)


@dataclass(kw_only=True, slots=True)  # frozen ones take three times as long to make
class Call:
    """Context of one call.

    Attributes:
        options: Flags that change answers.
        metrics: Metrics of the server.
        memory: Memory of the request.
        timeout: Time limit of the runtime in seconds, if there is one.
        active: Returns False if the caller has gone.
    """

    options: InferenceOptions
    metrics: Metrics
    memory: RequestMemory
    timeout: float | None = None
    active: Callable[[], bool] = always_active


def acquire(source: ServableSource, spec: messages.ModelSpec) -> AbstractContextManager[Servable]:
    """Return the servable that a message names, loaded until the context ends.

    Raises:
        StatusError: There is no name, or no such model, version or label is available.
    """
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    return source.acquire(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def predict(servable: Servable, request: messages.PredictRequest, call: Call) -> bytes:
    """Answer Predict.

    Returns:
        A serialised `PredictResponse`.

    Raises:
        StatusError: The request does not fit the signature, or the run failed.
    """
    signature_name = request.model_spec.signature_name or SERVING_DEFAULT
    definition = _predict_signature(servable, signature_name, call)
    _check_number_of_inputs(definition, request.inputs)
    arrays = {}
    admit = _admission(call)
    for alias, info in sorted(definition.inputs.items()):
        proto = request.inputs.get(alias) if alias in request.inputs else None
        if proto is None:
            if alias not in definition.defaults:
                raise _missing_input(alias, info.name, request.inputs, definition.defaults)
            proto = definition.defaults[alias]
        try:
            arrays[alias] = parse_tensor(proto, admit)
        except MissingStringsError as exc:
            raise invalid(f"tensor parsing error: {alias}: {exc}") from None
        except TensorParseError:
            raise invalid(f"tensor parsing error: {alias}") from None
    names = _output_names(definition, request.output_filter)
    outputs = timed_run(servable, signature_name, arrays, names, call)
    spec = _spec_bytes(request.model_spec.name, signature_name, servable.version)
    return _predict_response(outputs, spec, as_content=call.options.tensor_content)


def predict_arrays(
    servable: Servable, signature_name: str, arrays: Mapping[str, npt.NDArray[Any]], call: Call
) -> dict[str, npt.NDArray[Any]]:
    """Run a signature on arrays by input name.

    Returns:
        All outputs by name.

    Raises:
        StatusError: See `predict`.
    """
    definition = _predict_signature(servable, signature_name, call)
    _check_number_of_inputs(definition, arrays)
    return timed_run(servable, signature_name, arrays, list(definition.outputs), call)


def predict_exchange(
    servable: Servable,
    signature_name: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    outputs: Mapping[str, npt.NDArray[Any]],
) -> tuple[bytes, bytes]:
    """Return the serialised request and response that stand for a run on arrays."""
    asked = _spec_bytes(servable.name, signature_name, None)
    answered = _spec_bytes(servable.name, signature_name, servable.version)
    request = b"".join((_field(1, asked), *_tensor_entries(2, arrays)))
    return request, _predict_response(outputs, answered, as_content=False)


def _admission(call: Call) -> Admit:
    """Return a check of one tensor after the other of a request."""
    limits, total = call.options.limits, 0

    def admit(shape: tuple[int, ...], values: int, size: int) -> None:
        nonlocal total
        if shape:
            limits.check_rows(shape[0])
        if values:
            total += values
            limits.check_values(total)
            call.memory.need(size)

    return admit


def _predict_signature(
    servable: Servable, signature_name: str, call: Call
) -> messages.SignatureDef:
    definition: messages.SignatureDef | None = servable.signatures.get(signature_name)
    if definition is None:
        raise StatusError(
            Code.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.'
        )
    known = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)
    if call.options.check_method_names and definition.method_name not in known:
        raise StatusError(
            Code.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(known)}}}. Was: {definition.method_name}",
        )
    return definition


def _check_number_of_inputs(definition: messages.SignatureDef, names: Iterable[str]) -> None:
    sent, required = set(names), set(definition.inputs)
    if len(sent) > len(required) or (len(sent) < len(required) and not definition.defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(required)} "
            f"len({{{_joined(sent)}}}) != len({{{_joined(required)}}}). "
            f"Sent extra: {{{_joined(sent - required)}}}. "
            f"Missing but required: {{{_joined(required - sent)}}}."
        )


def _missing_input(
    alias: str, feed: str, sent: Iterable[str], defaults: Iterable[str]
) -> StatusError:
    return invalid(
        f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default "
        f"value provided. Inputs expected to be in the request {{{_joined(sent)}}}, or default "
        f"input alias set: {_joined(defaults)}"
    )


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _output_names(definition: messages.SignatureDef, output_filter: Sequence[str]) -> list[str]:
    names: list[str] = []
    for alias in output_filter:
        if alias not in definition.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {{{_joined(definition.outputs)}}}."
            )
        if alias in names:
            raise invalid(f"duplicate output tensor alias: {alias}")
        names.append(alias)
    return names or list(definition.outputs)


def timed_run(
    servable: Servable,
    signature_name: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    names: Sequence[str],
    call: Call,
    api: str = "Predict",
) -> dict[str, npt.NDArray[Any]]:
    """Run a signature and measure it as a part of calls of `api`.

    Raises:
        StatusError: The results would be too many or too large, or the run failed.
    """
    _admit_results(servable.signatures[signature_name], arrays, names, call)
    started = time.perf_counter()
    outputs = servable.run(signature_name, arrays, names, timeout=call.timeout, active=call.active)
    call.metrics.runtime_latency(servable.name, api, time.perf_counter() - started)
    call.options.limits.check_response(response_bytes(outputs.values()))
    return outputs


def _admit_results(
    definition: messages.SignatureDef,
    arrays: Mapping[str, npt.NDArray[Any]],
    names: Sequence[str],
    call: Call,
) -> None:
    """Check the rows and the expected number of results, and reserve memory for these."""
    rows = k = 1
    for name, array in arrays.items():
        if array.ndim:
            rows = max(rows, array.shape[0])
        elif name == K and array.dtype.kind in "iu":
            k = int(array)
    limits = call.options.limits
    limits.check_rows(rows)
    limits.check_results(rows, k)
    if rows * k <= _FEW_RESULTS:
        return
    size = 0
    for name in names:
        info = definition.outputs[name]
        dtype = DTYPES.get(info.dtype)
        inner = math.prod(dim.size if dim.size > 0 else k for dim in info.tensor_shape.dim[1:])
        numeric = dtype is not None and dtype.field != "string_val"
        size += rows * inner * (dtype.numpy.itemsize if dtype and numeric else _STRING_BYTES)
    limits.check_response(size)
    call.memory.need(3 * size)  # as arrays, as messages and as bytes


def response_bytes(arrays: Iterable[npt.NDArray[Any]]) -> int:
    """Return the size of the outputs; only a guess for few strings."""
    size = 0
    for array in arrays:
        if array.size <= _FEW_RESULTS or not array.dtype.hasobject:
            size += array.nbytes
        else:
            size += sum(map(len, array.ravel().tolist()))
    return size


def model_spec(name: str, signature_name: str, version: int) -> messages.ModelSpec:
    """Return the spec of the servable that answered."""
    spec = messages.ModelSpec(name=name, signature_name=signature_name or SERVING_DEFAULT)
    spec.version.value = version
    return spec


@lru_cache(1024)
def _spec_bytes(name: str, signature_name: str, version: int | None) -> bytes:
    """Return a serialised spec."""
    if version is None:
        return messages.ModelSpec(name=name, signature_name=signature_name).SerializeToString()
    return model_spec(name, signature_name, version).SerializeToString()


def _predict_response(
    outputs: Mapping[str, npt.NDArray[Any]], spec: bytes, *, as_content: bool
) -> bytes:
    entries = _tensor_entries(1, outputs, as_content=as_content)
    return b"".join((*entries, _field(2, spec)))


def _tensor_entries(
    number: int, arrays: Mapping[str, npt.NDArray[Any]], *, as_content: bool = False
) -> Iterable[bytes]:
    """Yield the entries of a map of tensors, which is field `number` of a message."""
    for alias, array in arrays.items():
        tensor = encode_tensor(array, as_content=as_content)
        yield _field(number, _field(1, alias.encode()) + _field(2, tensor))


def _field(number: int, content: bytes) -> bytes:
    return b"".join((bytes((number << 3 | 2,)), encode_varint(len(content)), content))


def metadata(servable: Servable) -> tuple[messages.ModelSpec, messages.SignatureDefMap]:
    """Return the metadata of a servable: name, version and signatures."""
    spec = messages.ModelSpec(name=servable.name)
    spec.version.value = servable.version
    signatures = messages.SignatureDefMap()
    for name, definition in servable.signatures.items():
        signatures.signature_def[name].CopyFrom(definition)
    return spec, signatures


def metadata_response(servable: Servable) -> messages.GetModelMetadataResponse:
    """Answer GetModelMetadata."""
    spec, signatures = metadata(servable)
    response = messages.GetModelMetadataResponse(model_spec=spec)
    packed = response.metadata[_SIGNATURE_DEF]
    packed.type_url = _SIGNATURE_DEF_MAP_URL
    packed.value = signatures.SerializeToString()
    return response


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Refuse all metadata except the signatures.

    Raises:
        StatusError: A requested field does not exist, or none is requested.
    """
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in fields:
        if name != _SIGNATURE_DEF:
            raise invalid(f"Metadata field {name} is not supported")


def status(
    source: ServableSource, name: str, version: int | None
) -> messages.GetModelStatusResponse:
    """Answer GetModelStatus: the states of a model's versions.

    Raises:
        StatusError: NOT_FOUND; the model or the version is unknown.
    """
    response = messages.GetModelStatusResponse()
    for servable in source.statuses(name, version=version):
        item = response.model_version_status.add(version=servable.version)
        item.state = int(servable.state)  # type: ignore[assignment]
        item.status.error_code = int(servable.error_code)  # type: ignore[assignment]
        item.status.error_message = servable.error_message
    return response
