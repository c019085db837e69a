"""The prediction service's calls on one servable, whatever transport they came by.

What is checked, in which order, and every error text follow TensorFlow Serving's
`servables/tensorflow/{predict_util,get_model_metadata_impl}.cc`; the calls on examples
are in `shortlist.serving.embedded.api.examples`.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from shortlist.clients.contract import SERVING_DEFAULT
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.api.tensors import (
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
    "check_metadata_fields",
    "metadata",
    "model_spec",
    "predict",
    "predict_arrays",
    "status",
    "timed_run",
]

PREDICT_METHOD: Final = "tensorflow/serving/predict"
CLASSIFY_METHOD: Final = "tensorflow/serving/classify"
REGRESS_METHOD: Final = "tensorflow/serving/regress"

_SIGNATURE_DEF: Final = "signature_def"
_SIGNATURE_DEF_MAP_URL: Final = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """What the server's flags change about answers.

    Attributes:
        check_method_names: `--enable_signature_method_name_check`.
        tensor_content: `--enable_serialization_as_tensor_content`.
    """

    check_method_names: bool = False
    tensor_content: bool = False


@dataclass(frozen=True, kw_only=True)
class Call:
    """Circumstances of one call.

    Attributes:
        options: The server's options.
        metrics: Where the runtime's share is measured.
        timeout: Seconds that the runtime may take, if limited.
    """

    options: InferenceOptions
    metrics: Metrics
    timeout: float | None = None


def predict(servable: Servable, request: messages.PredictRequest, call: Call) -> bytes:
    """Answers Predict.

    Returns:
        A serialised `PredictResponse`.

    Raises:
        StatusError: The request does not fit the signature, or running it failed.
    """
    signature_name = request.model_spec.signature_name or SERVING_DEFAULT
    definition = _predict_signature(servable, signature_name, call)
    _check_number_of_inputs(definition, request.inputs)
    arrays = {}
    for alias, info in sorted(definition.inputs.items()):
        proto = request.inputs.get(alias) if alias in request.inputs else None
        if proto is None:
            if alias not in definition.defaults:
                raise _missing_input(alias, info.name, request.inputs, definition.defaults)
            proto = definition.defaults[alias]
        try:
            arrays[alias] = parse_tensor(proto)
        except TensorParseError:
            raise invalid(f"tensor parsing error: {alias}") from None
    names = _output_names(definition, request.output_filter)
    outputs = timed_run(servable, signature_name, arrays, names, call)
    spec = model_spec(request.model_spec.name, signature_name, servable.version)
    return _predict_response(outputs, spec, as_content=call.options.tensor_content)


def predict_arrays(
    servable: Servable, signature_name: str, arrays: Mapping[str, npt.NDArray[Any]], call: Call
) -> dict[str, npt.NDArray[Any]]:
    """Predict with inputs that are arrays already and fit the signature's names.

    Returns:
        All outputs by name.

    Raises:
        StatusError: As `predict`.
    """
    definition = _predict_signature(servable, signature_name, call)
    _check_number_of_inputs(definition, arrays)
    return timed_run(servable, signature_name, arrays, list(definition.outputs), call)


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


def _check_number_of_inputs(definition: messages.SignatureDef, given: Iterable[str]) -> None:
    sent, wanted = set(given), set(definition.inputs)
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not definition.defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({{{_joined(sent)}}}) != len({{{_joined(wanted)}}}). "
            f"Sent extra: {{{_joined(sent - wanted)}}}. "
            f"Missing but required: {{{_joined(wanted - sent)}}}."
        )


def _missing_input(
    alias: str, feed: str, given: Iterable[str], defaults: Iterable[str]
) -> StatusError:
    return invalid(
        f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default "
        f"value provided. Inputs expected to be in the request {{{_joined(given)}}}, or default "
        f"input alias set: {_joined(defaults)}"
    )


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _output_names(definition: messages.SignatureDef, wanted: Sequence[str]) -> list[str]:
    names: list[str] = []
    for alias in wanted:
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
    """Runs a signature and records how long it took, for calls of `api`."""
    started = time.perf_counter()
    outputs = servable.run(signature_name, arrays, names, timeout=call.timeout)
    call.metrics.runtime_latency(servable.name, api, time.perf_counter() - started)
    return outputs


def model_spec(name: str, signature_name: str, version: int) -> messages.ModelSpec:
    """What a response says about who answered."""
    spec = messages.ModelSpec(name=name, signature_name=signature_name or SERVING_DEFAULT)
    spec.version.value = version
    return spec


def _predict_response(
    outputs: Mapping[str, npt.NDArray[Any]], spec: messages.ModelSpec, *, as_content: bool
) -> bytes:
    parts: list[bytes] = []
    for alias, array in outputs.items():
        tensor = encode_tensor(array, as_content=as_content)
        key = alias.encode()
        entry = b"".join(
            (b"\x0a", encode_varint(len(key)), key, b"\x12", encode_varint(len(tensor)), tensor)
        )
        parts += (b"\x0a", encode_varint(len(entry)), entry)
    tail = spec.SerializeToString()
    return b"".join((*parts, b"\x12", encode_varint(len(tail)), tail))


def metadata(servable: Servable) -> messages.GetModelMetadataResponse:
    """The signatures of a servable, as GetModelMetadata answers them."""
    response = messages.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    signatures = messages.SignatureDefMap()
    for name, definition in servable.signatures.items():
        signatures.signature_def[name].CopyFrom(definition)
    packed = response.metadata[_SIGNATURE_DEF]
    packed.type_url = _SIGNATURE_DEF_MAP_URL
    packed.value = signatures.SerializeToString()
    return response


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Refuses all metadata but the signatures.

    Raises:
        StatusError: A field is asked for that does not exist, or none at all.
    """
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in fields:
        if name != _SIGNATURE_DEF:
            raise invalid(f"Metadata field {name} is not supported")


def status(
    source: ServableSource, name: str, version: int | None
) -> messages.GetModelStatusResponse:
    """The states of a model's versions, as GetModelStatus answers them.

    Raises:
        StatusError: Nothing is known of the model or of the version.
    """
    response = messages.GetModelStatusResponse()
    for one in source.statuses(name, version=version):
        item = response.model_version_status.add(version=one.version)
        item.state = int(one.state)  # type: ignore[assignment]
        item.status.error_code = int(one.error_code)  # type: ignore[assignment]
        item.status.error_message = one.error_message
    return response
