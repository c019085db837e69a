"""The gRPC side of the fake server."""

from typing import Any

import grpc

from shortlist.clients.tensors import from_tensor_proto
from shortlist.clients.wire import messages, methods
from tests.unit.clients.fake_model import Backend, Refusal, Servable, check_inputs, float32

CODES = {code.name: code for code in grpc.StatusCode}


def typed_tensor(dtype: str, value: Any) -> messages.TensorProto:
    """As the genuine server does by default: values in the typed field."""
    tensor = messages.TensorProto(dtype=dtype)
    flat: Any = value
    if not isinstance(value, list):
        flat = [value]
    else:
        while True:
            tensor.tensor_shape.dim.add(size=len(flat) if not tensor.tensor_shape.dim else 0)
            if flat and isinstance(flat[0], list):
                width = len(flat[0])
                flat = [item for row in flat for item in row]
                tensor.tensor_shape.dim.add(size=width)
            break
    if dtype == "DT_STRING":
        tensor.string_val.extend([v.encode() if isinstance(v, str) else v for v in flat])
    else:
        fields: dict[str, Any] = {
            "DT_FLOAT": tensor.float_val,
            "DT_INT64": tensor.int64_val,
            "DT_BOOL": tensor.bool_val,
        }
        fields[dtype].extend(flat)
    return tensor


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


class GrpcSide(grpc.GenericRpcHandler):
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def service(self, details: Any) -> Any:
        for method in methods.METHODS:
            if method.path == details.method:
                run = getattr(self, f"_{method.name.lower()}", None)
                if run is not None:
                    return grpc.unary_unary_rpc_method_handler(
                        self._guarded(run),
                        request_deserializer=method.request.FromString,
                        response_serializer=method.response.SerializeToString,
                    )
        return None

    def _guarded(self, run: Any) -> Any:
        def handle(request: Any, context: Any) -> Any:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            try:
                return run(request, headers)
            except Refusal as refusal:
                context.abort(CODES[refusal.code], refusal.text)

        return handle

    def _spec(self, spec: Any) -> tuple[str, int | None, str | None]:
        choice = spec.WhichOneof("version_choice")
        return (
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    def _predict(self, request: Any, headers: dict[str, str]) -> Any:
        name, version, label = self._spec(request.model_spec)
        signature = request.model_spec.signature_name or "serving_default"
        inputs = {
            key: value if key.endswith("_bytes") else _decoded(value)
            for key, proto in request.inputs.items()
            for value in [from_tensor_proto(proto)]
        }
        batch = max(len(value) for value in inputs.values() if isinstance(value, list))
        with self.backend.entered("predict", signature, batch, headers):
            servable = self.backend.servable(name) if label is None else self._labelled(name, label)
            chosen = servable.resolve(name, version, label)
            check_inputs(servable, signature, set(inputs), rest=False)
            response = messages.PredictResponse()
            response.model_spec.name = name
            response.model_spec.version.value = chosen
            response.model_spec.signature_name = signature
            for key, (dtype, value) in self.backend.predict(signature, inputs, chosen).items():
                if not request.output_filter or key in request.output_filter:
                    response.outputs[key].CopyFrom(typed_tensor(dtype, value))
            return response

    def _labelled(self, name: str, label: str) -> Servable:
        # The genuine server looks the label up first, so an unknown model with a label
        # is an unknown label.
        if name not in self.backend.servables:
            raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return self.backend.servables[name]

    def _classify(self, request: Any, headers: dict[str, str]) -> Any:
        with self.backend.entered("classify", request.model_spec.name, 0, headers):
            response = messages.ClassificationResponse()
            for x in _example_values(request.input):
                row = response.result.classifications.add()
                row.classes.add(label="low", score=0.25)
                row.classes.add(label="high", score=float32(x))
            return response

    def _regress(self, request: Any, headers: dict[str, str]) -> Any:
        with self.backend.entered("regress", request.model_spec.name, 0, headers):
            response = messages.RegressionResponse()
            for x in _example_values(request.input):
                response.result.regressions.add(value=x / 2 + 2)
            return response

    def _getmodelstatus(self, request: Any, headers: dict[str, str]) -> Any:
        name, version, _ = self._spec(request.model_spec)
        with self.backend.entered("status", name, 0, headers):
            response = messages.GetModelStatusResponse()
            for number, state, error in self.backend.status(name, version):
                entry = response.model_version_status.add(version=number, state=state)
                entry.status.SetInParent()
                if error:
                    entry.status.error_code = messages.Code.INTERNAL
                    entry.status.error_message = error
            return response

    def _getmodelmetadata(self, request: Any, headers: dict[str, str]) -> Any:
        name, version, label = self._spec(request.model_spec)
        with self.backend.entered("metadata", name, 0, headers):
            servable = self.backend.servable(name) if label is None else self._labelled(name, label)
            chosen = servable.resolve(name, version, label)
            response = messages.GetModelMetadataResponse()
            response.model_spec.name = name
            response.model_spec.version.value = chosen
            packed = response.metadata["signature_def"]
            packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
            packed.value = signature_map(servable).SerializeToString()
            return response

    def _handlereloadconfigrequest(self, request: Any, headers: dict[str, str]) -> Any:
        with self.backend.entered("reload_config", "", 0, headers):
            self.backend.configs.append(request.config)
            response = messages.ReloadConfigResponse()
            names = [config.name for config in request.config.model_config_list.config]
            if len(set(names)) != len(names):
                response.status.error_code = messages.Code.INVALID_ARGUMENT
                response.status.error_message = "Illegal to list model twice in config list"
            return response


def _example_values(request: Any) -> list[float]:
    kind = getattr(request, request.WhichOneof("kind"))
    return [one.features.feature["x"].float_list.value[0] for one in kind.examples]


def signature_map(servable: Servable) -> messages.SignatureDefMap:
    found = messages.SignatureDefMap()
    for name, signature in servable.signatures.items():
        entry = found.signature_def[name]
        entry.method_name = "tensorflow/serving/predict"
        for side in ("inputs", "outputs"):
            for key, (dtype, shape) in signature[side].items():
                info = getattr(entry, side)[key]
                info.name = f"{key}:0"
                info.dtype = messages.DataType.Value(dtype)
                for size in shape:
                    info.tensor_shape.dim.add(size=size)
                info.tensor_shape.SetInParent()
    return found
