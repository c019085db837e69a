"""Codes, messages and services of the gRPC API, without TensorFlow."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from shortlist.clients.wire import messages, methods
from shortlist.serving.embedded.api.inference import InferenceOptions
from shortlist.serving.embedded.api.limits import MemoryRoom, RequestLimits
from shortlist.serving.embedded.grpc.reflection import PATHS
from shortlist.serving.embedded.grpc.server import GrpcOptions, GrpcServer, start_grpc
from tests.support.waiting import wait_until
from tests.unit.serving.embedded.doubling import Doubling
from tests.unit.serving.embedded.static_source import StaticSource


class Calls:
    """A server and a channel to it."""

    def __init__(self, server: GrpcServer, source: StaticSource, channel: grpc.Channel) -> None:
        self.server = server
        self.source = source
        self.channel = channel

    def bytes(self, path: str, data: bytes, timeout: float = 10) -> bytes:
        call: Any = self.channel.unary_unary(path)
        answer: bytes = call(data, timeout=timeout)
        return answer

    def __call__(self, method: methods.Method, request: Any, timeout: float = 10) -> Any:
        return method.response.FromString(
            self.bytes(method.path, request.SerializeToString(), timeout)
        )

    def failure(self, method: methods.Method, request: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self(method, request)
        error: Any = caught.value
        return error.code().name, error.details()


@contextmanager
def running(servable: Any = None, **options: Any) -> Iterator[Calls]:
    source = StaticSource({"m": {1: servable or Doubling()}}, {"m": {"stable": 1}})
    server = start_grpc(source, host="127.0.0.1", port=0, options=GrpcOptions(**options))
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Calls(server, source, channel)
    finally:
        server.stop(0)


def predict_request(*values: float) -> messages.PredictRequest:
    request = messages.PredictRequest()
    request.model_spec.name = "m"
    tensor = request.inputs["x"]
    tensor.dtype = messages.DataType.DT_FLOAT
    tensor.float_val.extend(values)
    tensor.tensor_shape.dim.add(size=len(values))
    return request


def test_answer_names_version_and_signature() -> None:
    request = predict_request(1, 2)
    request.model_spec.version_label = "stable"
    with running() as calls:
        response = calls(methods.PREDICT, request)
    assert list(response.outputs["y"].float_val) == [2, 4]
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def test_errors_have_the_real_servers_codes_and_messages() -> None:
    with running() as calls:
        unknown = predict_request(1)
        unknown.model_spec.name = "other"
        assert calls.failure(methods.PREDICT, unknown) == (
            "NOT_FOUND",
            "Servable not found for request: Latest(other)",
        )
        unknown.model_spec.name = ""
        assert calls.failure(methods.PREDICT, unknown) == (
            "INVALID_ARGUMENT",
            "ModelSpec has no name specified.",
        )
        assert calls.failure(methods.PREDICT, messages.PredictRequest()) == (
            "INVALID_ARGUMENT",
            "Missing ModelSpec",
        )
        code, details = calls.failure(methods.PREDICT, predict_request(-1))
        assert code == "INVALID_ARGUMENT"
        assert details == ("negative" + "!" * 2000)[:1024] + "...TRUNCATED"


@pytest.mark.parametrize(
    ("path", "data", "code"),
    [
        (methods.PREDICT.path, b"\xff\xff\xff", "INTERNAL"),
        ("/tensorflow.serving.PredictionService/NoSuchMethod", b"", "UNIMPLEMENTED"),
        (methods.SESSION_RUN.path, b"", "UNIMPLEMENTED"),
        (methods.HEALTH_CHECK.path, b"", "UNIMPLEMENTED"),
    ],
)
def test_invalid_call_is_refused_without_details(path: str, data: bytes, code: str) -> None:
    with running() as calls, pytest.raises(grpc.RpcError) as caught:
        calls.bytes(path, data)
    error: Any = caught.value
    assert (error.code().name, error.details()) == (code, "")


def test_status_metadata_and_reload() -> None:
    with running() as calls:
        status = messages.GetModelStatusRequest()
        status.model_spec.name = "m"
        [state] = calls(methods.GET_MODEL_STATUS, status).model_version_status
        assert (state.version, state.state) == (1, messages.ModelVersionStatus.AVAILABLE)
        metadata = messages.GetModelMetadataRequest(metadata_field=["signature_def"])
        metadata.model_spec.name = "m"
        packed = calls(methods.GET_MODEL_METADATA, metadata).metadata["signature_def"]
        assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        signatures = messages.SignatureDefMap.FromString(packed.value).signature_def
        assert list(signatures) == ["serving_default"]
        reload = messages.ReloadConfigRequest(metric_names=["/tensorflow/serving/request_count"])
        assert calls.failure(methods.HANDLE_RELOAD_CONFIG_REQUEST, reload) == (
            "INVALID_ARGUMENT",
            (
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            ),
        )
        reload.config.model_config_list.config.add(name="m")
        answer = calls(methods.HANDLE_RELOAD_CONFIG_REQUEST, reload)
        assert [metric.name for metric in answer.metric] == list(reload.metric_names)
        assert calls.source.reloads == [reload.config]


def test_health_service_answers_for_the_server_alone() -> None:
    with running(health_service=True) as calls:
        request = messages.HealthCheckRequest()
        serving = messages.HealthCheckResponse.SERVING
        assert calls(methods.HEALTH_CHECK, request).status == serving
        request.service = "m"
        assert calls.failure(methods.HEALTH_CHECK, request) == (
            "NOT_FOUND",
            "service name unknown",
        )
        watch: Any = calls.channel.unary_stream(methods.HEALTH_WATCH.path)
        stream = watch(b"", timeout=10)
        assert messages.HealthCheckResponse.FromString(next(stream)).status == serving
        calls.server.stop(600)  # an open watch does not delay it


def test_calls_beyond_the_limit_are_refused_and_others_answered() -> None:
    servable = Doubling()
    servable.hold.clear()
    with running(servable, max_threads=3) as calls, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(calls, methods.PREDICT, predict_request(1)) for _ in range(2)]
        for _ in waiting:
            assert servable.entered.acquire(timeout=10)
        assert calls.failure(methods.PREDICT, predict_request(1)) == (
            "RESOURCE_EXHAUSTED",
            "Server Threadpool Exhausted",
        )
        servable.hold.set()
        assert [future.result(10).outputs["y"].float_val[0] for future in waiting] == [2, 2]


def test_stop_lets_calls_in_flight_finish() -> None:
    servable = Doubling()
    servable.hold.clear()
    with running(servable) as calls, ThreadPoolExecutor(1) as pool:
        call = pool.submit(calls, methods.PREDICT, predict_request(1))
        assert servable.entered.acquire(timeout=10)
        stopping = threading.Thread(target=calls.server.stop, args=(10.0,))
        stopping.start()
        servable.hold.set()
        assert list(call.result(10).outputs["y"].float_val) == [2]
        stopping.join(10)
        assert not stopping.is_alive()


def test_deadline_of_a_call_reaches_the_runtime() -> None:
    servable = Doubling()
    with running(servable) as calls:
        calls(methods.PREDICT, predict_request(1), timeout=5)
        plain: Any = calls.channel.unary_unary(methods.PREDICT.path)
        plain(predict_request(1).SerializeToString())
    limited, unlimited = servable.timeouts
    assert limited is not None
    assert 3 < limited < 6
    assert unlimited is None


def test_messages_beyond_the_limit_are_refused() -> None:
    with running(inference=InferenceOptions(limits=RequestLimits(max_bytes=1000))) as calls:
        code, _ = calls.failure(methods.PREDICT, predict_request(*[1.0] * 1000))
        assert code == "RESOURCE_EXHAUSTED"
        assert calls(methods.PREDICT, predict_request(1)).outputs["y"].float_val[0] == 2


def test_channel_argument_does_not_lower_the_message_limit() -> None:
    """As recorded: the real server sets its limit after the arguments."""
    with running(channel_arguments=[("grpc.max_receive_message_length", 1000)]) as calls:
        answer = calls(methods.PREDICT, predict_request(*[1.0] * 1000))
        assert len(answer.outputs["y"].float_val) == 1000


def half_open(channel: grpc.Channel, path: str, number: int) -> tuple[list[Any], threading.Event]:
    """Start calls that never send their message; they end with the event or the channel."""
    end = threading.Event()

    def nothing() -> Iterator[bytes]:
        end.wait()
        yield from ()

    call: Any = channel.stream_unary(path)
    return [call.future(nothing()) for _ in range(number)], end


@pytest.mark.parametrize("number", [17, 120])
def test_calls_without_message_keep_no_other_waiting(number: int) -> None:
    status = messages.GetModelStatusRequest()
    status.model_spec.name = "m"
    with running(health_service=True) as calls:
        _, end = half_open(calls.channel, methods.PREDICT.path, number)
        try:
            own = [("grpc.use_local_subchannel_pool", 1)]  # another connection
            address = f"127.0.0.1:{calls.server.port}"
            with grpc.insecure_channel(address, options=own) as channel:
                others = Calls(calls.server, calls.source, channel)
                for _ in range(20):
                    assert others(methods.PREDICT, predict_request(1), 5).outputs["y"].float_val
                    assert others(methods.GET_MODEL_STATUS, status, 5).model_version_status
                    assert others(methods.HEALTH_CHECK, messages.HealthCheckRequest(), 5).status
        finally:
            end.set()


def test_call_without_message_is_cancelled_in_time() -> None:
    with running(message_seconds=0.1) as calls:
        [call], end = half_open(calls.channel, methods.PREDICT.path, 1)
        assert call.exception(10).code() is grpc.StatusCode.CANCELLED
        end.set()
        assert calls(methods.PREDICT, predict_request(1)).outputs["y"].float_val[0] == 2


def test_call_that_ends_without_message_is_refused() -> None:
    with running() as calls:
        call: Any = calls.channel.stream_unary(methods.PREDICT.path)
        with pytest.raises(grpc.RpcError) as caught:
            call(iter(()), timeout=10)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "requires exactly one request message" in error.details()


def test_status_is_answered_while_all_inference_places_are_taken() -> None:
    servable = Doubling()
    servable.hold.clear()
    request = messages.GetModelStatusRequest()
    request.model_spec.name = "m"
    with running(servable, max_threads=2) as calls, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(calls, methods.PREDICT, predict_request(1))
        assert servable.entered.acquire(timeout=10)
        assert calls(methods.GET_MODEL_STATUS, request).model_version_status
        servable.hold.set()
        assert waiting.result(10).outputs["y"].float_val[0] == 2


def test_memory_of_a_call_comes_back_when_its_answer_has_gone() -> None:
    room = MemoryRoom(10**6)
    with running(inference=InferenceOptions(room=room)) as calls:
        calls(methods.PREDICT, predict_request(1))
        code, details = calls.failure(methods.PREDICT, predict_request(*[1.0] * 10**5))
        assert code == "RESOURCE_EXHAUSTED"
        assert "--request_memory_mb" in details
        wait_until(lambda: room.taken == 0)


def test_connection_that_never_speaks_is_closed() -> None:
    with (
        running(channel_arguments=[("grpc.server_handshake_timeout_ms", 100)]) as calls,
        socket.create_connection(("127.0.0.1", calls.server.port), timeout=10) as silent,
    ):
        while silent.recv(4096):  # settings, then GOAWAY, then the end
            pass


def shaped(*sizes: int) -> messages.PredictRequest:
    request = predict_request()
    shape = request.inputs["x"].tensor_shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add(size=size)
    return request


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([20], "the request has 20 rows; this server takes 10 (--max_request_rows): send them in"),
        ([5, 60], "the request has 300 values; this server takes 100 (--max_request_values): send"),
        ([1, 200, 0], "the request has 200 values; this server takes 100"),
        ([0, 200], "the request has 200 values; this server takes 100"),
    ],
)
def test_shapes_that_make_much_of_little_are_refused(sizes: list[int], message: str) -> None:
    limits = RequestLimits(max_rows=10, max_values=100)
    with running(inference=InferenceOptions(limits=limits)) as calls:
        code, details = calls.failure(methods.PREDICT, shaped(*sizes))
        assert code == "RESOURCE_EXHAUSTED"
        assert details.startswith(message)


def test_answer_that_is_too_large_is_not_sent() -> None:
    limits = RequestLimits(max_response_bytes=40)
    with running(inference=InferenceOptions(limits=limits)) as calls:
        code, details = calls.failure(methods.PREDICT, predict_request(*[1.0] * 11))
        assert code == "RESOURCE_EXHAUSTED"
        assert details.startswith("the answer has 44 bytes; this server sends 40 (--max_response_")
        assert calls(methods.PREDICT, predict_request(*[1.0] * 10)).outputs["y"].float_val


def test_reflection_client_calls_a_service_that_it_knows_nothing_of() -> None:
    with running(health_service=True) as calls:
        database = ProtoReflectionDescriptorDatabase(calls.channel)
        pool = DescriptorPool(database)
        assert set(database.get_services()) == {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service: Any = pool.FindServiceByName("tensorflow.serving.PredictionService")
        predict = service.methods_by_name["Predict"]
        assert predict.input_type.full_name == "tensorflow.serving.PredictRequest"
        assert "GetModelMetadata" in service.methods_by_name
        assert "SessionRun" not in service.methods_by_name
        # As grpcurl does it: the messages' classes come from the server.
        request = json_format.ParseDict(
            {"modelSpec": {"name": "m"}, "inputs": {"x": {"dtype": "DT_FLOAT", "floatVal": [3]}}},
            GetMessageClass(predict.input_type)(),
        )
        answer: Any = GetMessageClass(predict.output_type).FromString(
            calls.bytes(methods.PREDICT.path, request.SerializeToString())
        )
        assert list(answer.outputs["y"].float_val) == [6]
        # The type within GetModelMetadata's `Any`, and the newer version of reflection.
        for name in ("tensorflow.serving.SignatureDefMap", "tensorflow.TensorProto"):
            assert pool.FindMessageTypeByName(name).full_name == name
        newer: Any = pool.FindServiceByName("grpc.reflection.v1.ServerReflection")
        request_type = newer.methods_by_name["ServerReflectionInfo"].input_type
        assert request_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"


def reflect(calls: Calls, requests: Iterator[bytes], path: str = PATHS[0]) -> Any:
    call: Any = calls.channel.stream_stream(path)
    return call(requests, timeout=10)


def test_reflection_streams_are_few_and_cannot_be_held() -> None:
    ended = threading.Event()

    def held() -> Iterator[bytes]:
        yield b""
        ended.wait(10)

    with running(message_seconds=0.4) as calls:
        streams = [reflect(calls, held(), PATHS[1]) for _ in range(8)]
        answers = [next(stream) for stream in streams]
        assert all(answers)
        with pytest.raises(grpc.RpcError) as caught:
            next(reflect(calls, iter([b""])))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Meanwhile everything else is answered.
        assert calls(methods.PREDICT, predict_request(1)).outputs["y"].float_val == [2]
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() is grpc.StatusCode.CANCELLED
        ended.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(reflect(calls, iter([bytes(100_000)])))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_reflection_can_be_off() -> None:
    with running(reflection=False) as calls, pytest.raises(grpc.RpcError) as caught:
        next(reflect(calls, iter([b""])))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
