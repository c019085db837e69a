"""Requests and answers as messages, for gRPC."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from shortlist.clients import errors
from shortlist.clients._codecs.requests import (
    ClassifyRequest,
    MetadataRequest,
    Outputs,
    PredictRequest,
    RegressRequest,
    ReloadRequest,
    Request,
    StatusRequest,
    Target,
)
from shortlist.clients._codecs.tensors import WireTensor
from shortlist.clients._codecs.values import all_str, feature_values, to_tensor_proto
from shortlist.clients.types import (
    Classification,
    Metadata,
    ModelStatus,
    Signature,
    State,
    TensorSpec,
    VersionStatus,
)
from shortlist.clients.wire import messages, methods

__all__ = ["message_of", "method_of", "reader_of", "server_config", "signature_of"]

_STRING: Final = messages.DataType.DT_STRING
_METHODS: Final = {
    PredictRequest: replace(methods.PREDICT, response=messages.PackedPredictResponse),
    ClassifyRequest: methods.CLASSIFY,
    RegressRequest: methods.REGRESS,
    StatusRequest: methods.GET_MODEL_STATUS,
    MetadataRequest: methods.GET_MODEL_METADATA,
    ReloadRequest: methods.HANDLE_RELOAD_CONFIG_REQUEST,
}


def method_of(request: Request) -> methods.Method:
    """Return the RPC of a request."""
    return _METHODS[type(request)]


def server_config(config: Any) -> messages.ModelServerConfig:
    """Return a `ModelServerConfig` from a message or its text form.

    Raises:
        ValueError: `config` is neither.
    """
    if isinstance(config, messages.ModelServerConfig):
        return config
    if isinstance(config, str):
        try:
            return text_format.Parse(config, messages.ModelServerConfig())
        except text_format.ParseError as exc:
            raise ValueError(f"not the text of a ModelServerConfig: {exc}") from exc
    if hasattr(config, "SerializeToString"):  # TensorFlow Serving's own message
        return messages.ModelServerConfig.FromString(config.SerializeToString())
    raise ValueError(f"config must be a ModelServerConfig or its text, got {type(config).__name__}")


# --- requests --------------------------------------------------------------------


def _spec(target: Target, signature: str | None = None) -> messages.ModelSpec:
    spec = messages.ModelSpec()
    _fill_spec(spec, target, signature)
    return spec


def _fill_spec(spec: messages.ModelSpec, target: Target, signature: str | None) -> None:
    spec.name = target.model
    if signature:
        spec.signature_name = signature
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label


def message_of(request: Request) -> Any:
    """Return the message to send.

    Raises:
        ValueError: A value cannot be sent.
    """
    if isinstance(request, PredictRequest):
        return _predict_message(request)
    if isinstance(request, StatusRequest):
        return messages.GetModelStatusRequest(model_spec=_spec(request.target))
    if isinstance(request, MetadataRequest):
        return messages.GetModelMetadataRequest(
            model_spec=_spec(request.target), metadata_field=["signature_def"]
        )
    if isinstance(request, ReloadRequest):
        return messages.ReloadConfigRequest(config=request.config)
    kind = (
        messages.ClassificationRequest
        if isinstance(request, ClassifyRequest)
        else messages.RegressionRequest
    )
    return kind(
        model_spec=_spec(request.target, request.signature),
        input=_input(request.examples, request.context),
    )


def _predict_message(request: PredictRequest) -> messages.PredictRequest:
    message = messages.PredictRequest()
    _fill_spec(message.model_spec, request.target, request.signature)
    if request.outputs:
        message.output_filter.extend(request.outputs)
    for name, item in request.inputs.items():
        value = item.value
        try:
            if item.dtype == "DT_STRING" and type(value) is list and all_str(value):
                # Straight into the request: the fast path of user ids.
                tensor = message.inputs[name]
                tensor.dtype = _STRING
                tensor.tensor_shape.dim.add().size = len(value)
                tensor.string_val.extend([text.encode() for text in value])
            else:
                message.inputs[name].CopyFrom(to_tensor_proto(value, item.dtype))
        except ValueError as exc:
            raise ValueError(f"input {name!r}: {exc}") from exc
    return message


def _input(
    examples: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None
) -> messages.Input:
    protos = [_example(example) for example in examples]
    if context is None:
        return messages.Input(example_list=messages.ExampleList(examples=protos))
    return messages.Input(
        example_list_with_context=messages.ExampleListWithContext(
            examples=protos, context=_example(context)
        )
    )


def _example(features: Mapping[str, Any]) -> messages.Example:
    """Return a `tf.Example`; each feature is a number, string or bytes, or a flat list of them.

    Raises:
        ValueError: A feature has mixed or other types.
    """
    example = messages.Example()
    for name, value in features.items():
        values = feature_values(name, value)
        feature = example.features.feature[name]
        if not values:
            feature.SetInParent()
        elif isinstance(values[0], str | bytes):
            encoded = [item.encode() if isinstance(item, str) else item for item in values]
            feature.bytes_list.value.extend(encoded)
        elif all(isinstance(item, int) for item in values):
            feature.int64_list.value.extend(map(int, values))
        else:
            feature.float_list.value.extend(values)
    return example


# --- answers --------------------------------------------------------------------


def reader_of(request: Request, message: Any) -> Any:
    """Return the answer in a message, in the form that `requests` states.

    Raises:
        ProtocolError: The message contradicts itself.
        ServingError: The message contains a failure, as the answer to a reload may.
    """
    if isinstance(request, PredictRequest):
        spec, outputs = message.model_spec, message.outputs
        try:
            tensors = {name: WireTensor(outputs[name]) for name in outputs}
        except ValueError as exc:
            raise errors.ProtocolError(f"the answer of {request.target}: {exc}") from exc
        return Outputs(
            tensors=tensors, version=spec.version.value if spec.HasField("version") else None
        )
    if isinstance(request, StatusRequest):
        return _status(request.target.model, message)
    if isinstance(request, MetadataRequest):
        return _metadata(request.target.model, message)
    if isinstance(request, ReloadRequest):
        return _raise_reload_error(message)
    if isinstance(request, ClassifyRequest):
        return [
            Classification(
                labels=tuple(entry.label for entry in row.classes),
                scores=tuple(entry.score for entry in row.classes),
            )
            for row in message.result.classifications
        ]
    return [entry.value for entry in message.result.regressions]


def _status(model: str, message: Any) -> ModelStatus:
    versions = []
    for entry in message.model_version_status:
        code = entry.status.error_code
        versions.append(
            VersionStatus(
                version=entry.version,
                state=State(entry.state) if entry.state in set(State) else State.UNKNOWN,
                error_code=_code_name(code),
                error_message=entry.status.error_message if code else None,
            )
        )
    return ModelStatus(model=model, versions=tuple(versions))


def _code_name(code: int) -> str:
    try:
        return str(messages.Code.Name(code))
    except ValueError:
        return str(code)


def _raise_reload_error(message: Any) -> None:
    if not message.status.error_code:
        return
    name = _code_name(message.status.error_code)
    text = message.status.error_message
    raise errors.error_class_for_code(name)(
        f"reload_config was refused: {name}: {text}; parts of it may have taken effect; "
        "run `shortlist status`",
        received=f"{name}: {text}",
    )


def _metadata(model: str, message: Any) -> Metadata:
    packed = message.metadata.get("signature_def")
    if packed is None:
        raise errors.ProtocolError(f"the metadata of {model!r} has no signature_def")
    # The type URL names tensorflow.serving's message, so `Unpack` would refuse it.
    try:
        signatures = messages.SignatureDefMap.FromString(packed.value)
    except DecodeError as exc:
        raise errors.ProtocolError(f"the metadata of {model!r} is unreadable: {exc}") from exc
    spec = message.model_spec
    return Metadata(
        model=model,
        version=spec.version.value if spec.HasField("version") else None,
        signatures={
            name: signature_of(signature) for name, signature in signatures.signature_def.items()
        },
    )


def signature_of(definition: messages.SignatureDef) -> Signature:
    """Return the inputs and outputs of a signature."""
    inputs, outputs = (
        {key: _tensor_spec(info) for key, info in side.items()}
        for side in (definition.inputs, definition.outputs)
    )
    return Signature(inputs=inputs, outputs=outputs, method_name=definition.method_name)


def _tensor_spec(info: messages.TensorInfo) -> TensorSpec:
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
    names = messages.DataType.DESCRIPTOR.values_by_number
    dtype = names[info.dtype].name if info.dtype in names else str(int(info.dtype))
    return TensorSpec(dtype=dtype, shape=shape, tensor_name=info.name)
