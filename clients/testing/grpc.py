"""The gRPC API of the fake server."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from shortlist.clients._codecs.tensors import from_tensor_proto
from shortlist.clients._codecs.values import flatten
from shortlist.clients.testing.model import FakeModel, Refusal
from shortlist.clients.wire import messages, methods
from shortlist.clients.wire.dtypes import by_name

if TYPE_CHECKING:
    from shortlist.clients.testing.server import FakeServer

__all__ = ["GrpcHandler"]

Headers = Mapping[str, str]


class GrpcHandler(grpc.GenericRpcHandler):
    """Answers the RPCs of a server."""

    def __init__(self, server: "FakeServer") -> None:
        self._server = server
        self._runs: dict[methods.Method, Callable[[Any, Headers], Any]] = {
            methods.PREDICT: self._predict,
            methods.CLASSIFY: self._classify,
            methods.REGRESS: self._regress,
            methods.GET_MODEL_STATUS: self._status,
            methods.GET_MODEL_METADATA: self._metadata,
            methods.HANDLE_RELOAD_CONFIG_REQUEST: self._reload_config,
        }

    def service(self, details: Any) -> Any:
        """Return the handler of one RPC."""
        for method, run in self._runs.items():
            if method.path == details.method:
                return grpc.unary_unary_rpc_method_handler(
                    _guarded(run),
                    request_deserializer=method.request.FromString,
                    response_serializer=method.response.SerializeToString,
                )
        return None

    def _predict(self, request: Any, headers: Headers) -> Any:
        name, version, label = _spec(request.model_spec)
        signature = request.model_spec.signature_name or "serving_default"
        inputs = {key: from_tensor_proto(tensor) for key, tensor in request.inputs.items()}
        inputs = {
            key: value if key.endswith("_bytes") else _decoded(value)
            for key, value in inputs.items()
        }
        with self._server.receive("predict", name, headers, signature=signature, inputs=inputs):
            model, version = self._server.find(name, version, label)
            missing = Refusal(
                "FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.'
            )
            outputs = model.run(signature, inputs, version, missing=missing)
            response = messages.PredictResponse()
            response.model_spec.name = name
            response.model_spec.version.value = version
            response.model_spec.signature_name = signature
            specs = model.signatures[signature].outputs
            for key, value in outputs.items():
                if not request.output_filter or key in request.output_filter:
                    _fill(response.outputs[key], specs[key][0], value)
            return response

    def _classify(self, request: Any, headers: Headers) -> Any:
        name, version, label = _spec(request.model_spec)
        with self._server.receive("classify", name, headers):
            model, _ = self._server.find(name, version, label)
            response = messages.ClassificationResponse()
            for features in _examples(request.input):
                row = response.result.classifications.add()
                for text, score in model.classify(features):
                    row.classes.add(label=text, score=score)
            return response

    def _regress(self, request: Any, headers: Headers) -> Any:
        name, version, label = _spec(request.model_spec)
        with self._server.receive("regress", name, headers):
            model, _ = self._server.find(name, version, label)
            response = messages.RegressionResponse()
            for features in _examples(request.input):
                response.result.regressions.add(value=model.regress(features))
            return response

    def _status(self, request: Any, headers: Headers) -> Any:
        name, version, _ = _spec(request.model_spec)
        with self._server.receive("status", name, headers):
            response = messages.GetModelStatusResponse()
            for number, state, error in self._server.status(name, version):
                entry = response.model_version_status.add(version=number, state=state.name)
                entry.status.SetInParent()
                if error:
                    entry.status.error_code = messages.Code.INTERNAL
                    entry.status.error_message = error
            return response

    def _metadata(self, request: Any, headers: Headers) -> Any:
        name, version, label = _spec(request.model_spec)
        with self._server.receive("metadata", name, headers):
            model, version = self._server.find(name, version, label)
            response = messages.GetModelMetadataResponse()
            response.model_spec.name = name
            response.model_spec.version.value = version
            packed = response.metadata["signature_def"]
            packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
            packed.value = _signatures(model).SerializeToString()
            return response

    def _reload_config(self, request: Any, headers: Headers) -> Any:
        with self._server.receive("reload_config", "", headers):
            self._server.configs.append(request.config)
            response = messages.ReloadConfigResponse()
            names = [config.name for config in request.config.model_config_list.config]
            if len(set(names)) != len(names):
                response.status.error_code = messages.Code.INVALID_ARGUMENT
                response.status.error_message = "Illegal to list model twice in config list"
            return response


def _guarded(run: Callable[[Any, Headers], Any]) -> Callable[[Any, Any], Any]:
    def handle(request: Any, context: Any) -> Any:
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        try:
            return run(request, headers)
        except Refusal as refusal:
            context.abort(grpc.StatusCode[refusal.code], refusal.text)

    return handle


def _spec(spec: Any) -> tuple[str, int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _fill(tensor: Any, dtype_name: str, value: Any) -> None:
    """Fill a tensor as TensorFlow Serving does by default: with values in the typed field."""
    dtype = by_name(dtype_name)
    if dtype is None:
        raise Refusal("INTERNAL", f"the fake server cannot send {dtype_name}")
    shape, flat = flatten(value)
    tensor.dtype = dtype.number
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    encoded = [item.encode() if isinstance(item, str) else item for item in flat]
    getattr(tensor, dtype.field).extend(encoded)


def _examples(request: Any) -> list[dict[str, Any]]:
    """Return the features of each example; a single value is not in a list."""

    def values(feature: Any) -> Any:
        kind = feature.WhichOneof("kind")
        plain = _decoded(list(getattr(feature, kind).value)) if kind else []
        return plain[0] if len(plain) == 1 else plain

    examples = getattr(request, request.WhichOneof("kind")).examples
    return [
        {name: values(feature) for name, feature in example.features.feature.items()}
        for example in examples
    ]


def _signatures(model: FakeModel) -> messages.SignatureDefMap:
    signatures = messages.SignatureDefMap()
    for name, signature in model.signatures.items():
        entry = signatures.signature_def[name]
        entry.method_name = "tensorflow/serving/predict"
        for side, specs in ((entry.inputs, signature.inputs), (entry.outputs, signature.outputs)):
            for key, (dtype, shape) in specs.items():
                side[key].MergeFrom(messages.TensorInfo(name=f"{key}:0", dtype=dtype))
                side[key].tensor_shape.SetInParent()
                for size in shape:
                    side[key].tensor_shape.dim.add(size=size)
    return signatures
