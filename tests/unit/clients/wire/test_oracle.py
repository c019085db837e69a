"""Our messages compared with those of `tensorflow-serving-api`, in one process.

Slow, because importing theirs imports TensorFlow.
"""

import importlib
import random
from typing import Any

import numpy as np
import pytest

from shortlist.clients.tensors import from_tensor_proto, to_tensor_proto
from shortlist.clients.wire import messages, methods

pytestmark = pytest.mark.slow

THEIR_MODULES = (
    *(f"tensorflow_serving.apis.{name}_pb2" for name in (
        *("classification", "get_model_metadata", "get_model_status", "inference", "input"),
        *("logging", "model", "model_management", "predict", "prediction_log", "regression"),
        *("session_service", "status"),
    )),
    *(f"tensorflow_serving.config.{name}_pb2" for name in (
        *("file_system_storage_path_source", "log_collector_config", "logging_config"),
        *("model_server_config", "platform_config"),
    )),
    *(f"tensorflow.core.{name}_pb2" for name in (
        *("example.example", "example.feature", "framework.tensor", "framework.tensor_shape"),
        *("framework.types", "framework.resource_handle", "protobuf.meta_graph"),
        *("protobuf.named_tensor", "protobuf.struct", "protobuf.config", "protobuf.error_codes"),
    )),
)  # fmt: skip

# Only ours, or only read from text files that tensorflow-serving-api has no messages for.
OURS_ALONE = {
    *("PackedTensorProto", "PackedPredictRequest", "PackedPredictResponse", "PackedPredictLog"),
    *("PackedPredictionLog", "HealthCheckRequest", "HealthCheckResponse"),
    *("PrometheusConfig", "MonitoringConfig", "SSLConfig", "BatchingParameters"),
}
# Fields that stay unknown to us, see inference.proto.
LEFT_OUT = {
    "RunOptions": {"debug_options", "experimental"},
    "RunMetadata": {
        *("step_stats", "cost_graph", "partition_graphs", "function_graphs", "session_metadata"),
    },
}
# Fields of our own, which their messages keep as unknown.
ADDED = {"LogMetadata": {"version_label", "time_us", "latency_us", "transport"}}


def _descriptors() -> dict[str, Any]:
    """Return their descriptors by our full names."""
    descriptors: dict[str, Any] = {}

    def add(descriptor: Any, name: str) -> None:
        descriptors[name] = descriptor
        for nested in descriptor.nested_types:
            add(nested, f"{name}.{nested.name}")
        for enum in descriptor.enum_types:
            descriptors[f"{name}.{enum.name}"] = enum

    for module_name in THEIR_MODULES:
        module: Any = importlib.import_module(module_name)
        for name, descriptor in module.DESCRIPTOR.message_types_by_name.items():
            add(descriptor, name)
        descriptors.update(module.DESCRIPTOR.enum_types_by_name)
    # tensorflow.error.Code is in another package.
    from google.protobuf import descriptor_pool

    descriptors["Code"] = descriptor_pool.Default().FindEnumTypeByName("tensorflow.error.Code")
    return descriptors


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    return _descriptors()


def _name(descriptor: Any) -> str:
    full = str(descriptor.full_name)
    for prefix in ("shortlist.wire.", "tensorflow.serving.", "tensorflow.error.", "tensorflow."):
        if full.startswith(prefix):
            return full.removeprefix(prefix)
    return full


def _fields(descriptor: Any) -> dict[str, Any]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.is_packed,
            _name(field.message_type or field.enum_type)
            if field.message_type or field.enum_type
            else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in descriptor.fields
    }


OUR_MESSAGES = [
    name for name in messages.__all__ if hasattr(getattr(messages, name).DESCRIPTOR, "fields")
]
OUR_ENUMS = sorted(set(messages.__all__) - set(OUR_MESSAGES))


@pytest.mark.parametrize("name", sorted(set(OUR_MESSAGES) - OURS_ALONE))
def test_fields_are_theirs(name: str, theirs: dict[str, Any]) -> None:
    def compare(ours: Any, path: str) -> None:
        expected = _fields(theirs[path])
        for left_out in LEFT_OUT.get(path, ()):
            del expected[left_out]
        fields = _fields(ours)
        for added in ADDED.get(path, ()):
            assert fields.pop(added)[0] > 1000
        assert fields == expected, path
        for nested in ours.nested_types:
            compare(nested, f"{path}.{nested.name}")
        for enum in ours.enum_types:
            assert _values(enum) == _values(theirs[f"{path}.{enum.name}"])

    compare(getattr(messages, name).DESCRIPTOR, name)


def _values(enum: Any) -> dict[str, int]:
    return {
        value.name: value.number for value in enum.values if "DO_NOT_USE_RESERVED" not in value.name
    }


@pytest.mark.parametrize("name", OUR_ENUMS)
def test_enum_values_are_theirs(name: str, theirs: dict[str, Any]) -> None:
    assert _values(getattr(messages, name).DESCRIPTOR) == _values(theirs[name])


def _fill(message: Any, rng: random.Random, depth: int) -> None:
    """Sets every field, at random."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and message.WhichOneof(field.containing_oneof.name):
            continue
        if field.message_type is not None and depth <= 0:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value_type = field.message_type.fields_by_name["value"]
            for key in ("b", "a", "七"):
                if value_type.message_type is not None:
                    _fill(getattr(message, field.name)[key], rng, depth - 1)
                else:
                    getattr(message, field.name)[key] = _scalar(value_type, rng)
        elif field.message_type is not None:
            target = getattr(message, field.name)
            if field.is_repeated:
                for _ in range(2):
                    _fill(target.add(), rng, depth - 1)
            else:
                target.SetInParent()
                _fill(target, rng, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend([_scalar(field, rng) for _ in range(3)])
        else:
            setattr(message, field.name, _scalar(field, rng))


def _scalar(field: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        return b"\xff\x00" if field.type == field.TYPE_BYTES else f"é{rng.random()}"
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.uniform(-1e6, 1e6)
    if kind == field.CPPTYPE_BOOL:
        return True
    if kind == field.CPPTYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    signed = kind in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    return rng.randrange(-(2**31) if signed else 0, 2**31)


@pytest.mark.parametrize("name", sorted(set(OUR_MESSAGES) - OURS_ALONE))
def test_full_messages_have_the_same_bytes(name: str, theirs: dict[str, Any]) -> None:
    from google.protobuf import message_factory

    their_class: Any = message_factory.GetMessageClass(theirs[name])
    for seed in range(5):
        ours = getattr(messages, name)()
        _fill(ours, random.Random(seed), depth=4)
        raw = ours.SerializeToString(deterministic=True)
        parsed = their_class.FromString(raw)
        assert parsed.SerializeToString(deterministic=True) == raw
        assert type(ours).FromString(parsed.SerializeToString()) == ours


# TensorFlow's Python writes these element by element, we write one block; its servers and its
# Python read both. Its Python cannot create tensors of the last three types.
ELEMENTWISE = {"bool", "complex64", "complex128", "uint16", "int4", "uint4"}
UNWRITTEN = {"float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"}

DTYPES: dict[str, list[Any]] = {
    "float32": [1.5, -2.0, float("inf")],
    "float64": [1.5, -2.0, 1e300],
    "float16": [1.5, -2.0, 65504.0],
    "int8": [-128, 0, 127],
    "int16": [-(2**15), 0, 5],
    "int32": [-(2**31), 0, 5],
    "int64": [-(2**63), 0, 5],
    "uint8": [0, 5, 255],
    "uint16": [0, 5, 65535],
    "uint32": [0, 5, 2**32 - 1],
    "uint64": [0, 5, 2**64 - 1],
    "bool": [True, False, True],
    "complex64": [1 + 2j, 0, -1j],
    "complex128": [1 + 2j, 0, -1j],
    "object": [b"a", "é".encode(), b"\xff"],
    "bfloat16": [1.5, -2.0, 0.0],
    "float8_e5m2": [1.5, -2.0, 0.0],
    "float8_e4m3fn": [1.5, -2.0, 0.0],
    "float8_e4m3fnuz": [1.5, -2.0, 0.0],
    "float8_e4m3b11fnuz": [1.5, -2.0, 0.0],
    "float8_e5m2fnuz": [1.5, -2.0, 0.0],
    "int4": [-8, 0, 7],
    "uint4": [0, 5, 15],
}


def _array(name: str, values: list[Any]) -> Any:
    import ml_dtypes

    own = name in ("object", "bool") or hasattr(np, name)
    return np.array(values, dtype=name if own else getattr(ml_dtypes, name))


@pytest.mark.parametrize("name", sorted(set(DTYPES) - UNWRITTEN))
@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1)])
def test_tensors_have_the_bytes_that_tensorflow_writes(name: str, shape: tuple[int, ...]) -> None:
    from tensorflow import make_ndarray, make_tensor_proto

    values = DTYPES[name] if 3 in shape else DTYPES[name][:1]
    array = _array(name, values).reshape(shape)
    ours = to_tensor_proto(array)
    theirs = make_tensor_proto(array)
    if name not in ELEMENTWISE or array.size == 1:
        assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
            deterministic=True
        )
    parsed = type(theirs).FromString(ours.SerializeToString())
    assert make_ndarray(parsed).tolist() == array.tolist()
    back = from_tensor_proto(
        messages.TensorProto.FromString(theirs.SerializeToString()), arrays=True
    )
    assert back.tolist() == array.tolist()
    assert back.dtype == array.dtype


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([["a", "", "七人"], ["b", "", ""]], "string"),
        ([[""], [""]], "string"),
        ([[0.5, -1.0], [2e7, 1.0]], "float32"),
        ([[], []], "float32"),
    ],
)
def test_rows_of_values_have_the_bytes_that_tensorflow_writes(values: Any, name: str) -> None:
    from tensorflow import dtypes, make_tensor_proto

    theirs = make_tensor_proto(values, dtype=dtypes.as_dtype(name))
    ours = to_tensor_proto(values, {"string": "DT_STRING", "float32": "DT_FLOAT"}[name])
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )


def test_paths_and_messages_are_those_of_their_stub() -> None:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    class Channel:
        def __init__(self) -> None:
            self.paths: list[str] = []

        def unary_unary(self, path: str, **_: Any) -> None:
            self.paths.append(path)

    channel = Channel()
    prediction_service_pb2_grpc.PredictionServiceStub(channel)
    ours = {method.path for method in vars(methods).values() if isinstance(method, methods.Method)}
    assert set(channel.paths) <= ours
    assert len(channel.paths) == 5
