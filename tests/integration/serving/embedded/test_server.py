"""Servers in separate processes: ports, signals, TLS, polled configuration."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from shortlist.clients.contract import WARMUP_FILE
from shortlist.clients.wire import messages, methods
from tests.support.paths import ROOT
from tests.support.saved_models import write_saved_model
from tests.support.server_process import ServerProcess, serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

CERTIFICATES = ROOT / "tests" / "support" / "certificates"


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    write_saved_model(tmp_path / "m" / "1", addend=2)
    return tmp_path / "m"


def one_model(base_path: Path) -> tuple[str, str]:
    return "--model_name=m", f"--model_base_path={base_path}"


def test_listens_only_on_loopback(tmp_path: Path, base_path: Path) -> None:
    with serving(tmp_path, *one_model(base_path)) as server:
        server.wait_open()
        assert server.predict(2.0) == 3.0
        own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
        for address in own - {"127.0.0.1", "::1"}:
            if not str(address).startswith("127."):
                with pytest.raises(OSError, match="refused"):
                    socket.create_connection((str(address), server.rest_port), 2)
        assert "without authentication" not in server.log


def test_other_address_is_accepted_with_a_warning(tmp_path: Path, base_path: Path) -> None:
    with serving(tmp_path, *one_model(base_path), "--bind_address=0.0.0.0") as server:
        server.wait_open()
        assert "W shortlist/serving/embedded/process.py" in server.log
        assert "listening on 0.0.0.0 without authentication" in server.log


def test_call_in_flight_is_answered_after_sigterm(tmp_path: Path, base_path: Path) -> None:
    with serving(tmp_path, *one_model(base_path)) as server:
        server.wait_open()
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
            future = server.predict_slowly(4000, channel)
            time.sleep(0.3)  # until the call has reached the server
            assert server.terminate() == -signal.SIGTERM
            answer = messages.PredictResponse.FromString(future.result(timeout=1))
        assert answer.model_spec.version.value == 1


@pytest.mark.parametrize("ignored", [False, True])
def test_sigint_ends_a_server_unless_its_parent_ignores_it(
    tmp_path: Path, base_path: Path, ignored: bool
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with serving(tmp_path, *one_model(base_path)) as server:
            server.wait_open()
            if ignored:
                server.process.send_signal(signal.SIGINT)
                assert server.predict(2.0) == 3.0
                assert server.terminate() == -signal.SIGTERM
            else:
                assert server.terminate(signal.SIGINT) == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_signals_at_once_end_the_server(tmp_path: Path, base_path: Path) -> None:
    with serving(tmp_path, *one_model(base_path)) as server:
        server.wait_open()
        server.process.send_signal(signal.SIGINT)
        assert server.terminate(timeout=20) in (-signal.SIGINT, -signal.SIGTERM)


def test_sigterm_ends_a_server_that_waits_for_its_model(tmp_path: Path) -> None:
    with serving(tmp_path, *one_model(tmp_path / "absent")) as server:
        wait_until(lambda: "Could not find base path" in server.log, timeout=60)
        assert server.terminate(timeout=5) == -signal.SIGTERM


def test_occupied_grpc_port_ends_the_start(tmp_path: Path, base_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = (taken.getsockname()[1], 0)
        with serving(tmp_path, *one_model(base_path), ports=ports) as server:
            assert server.process.wait(60) == 255
            assert "Error: INVALID_ARGUMENT: Failed to BuildAndStart gRPC server" in server.log


def test_occupied_rest_port_leaves_grpc(tmp_path: Path, base_path: Path) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        grpc_port = free.getsockname()[1]
        free.close()
        ports = (grpc_port, taken.getsockname()[1])
        with serving(tmp_path, *one_model(base_path), ports=ports) as server:
            server.wait_open(grpc_port)
            wait_until(lambda: "Failed to start HTTP Server at" in server.log)
            assert server.process.poll() is None


def ssl_config(tmp_path: Path, *, client_verify: bool) -> str:
    def pem(name: str) -> str:
        return (CERTIFICATES / name).read_text().replace("\n", "\\n")

    file = tmp_path / "ssl.config"
    file.write_text(
        f'server_key: "{pem("server.key")}"\nserver_cert: "{pem("server.pem")}"\n'
        f'custom_ca: "{pem("ca.pem")}"\nclient_verify: {str(client_verify).lower()}\n'
    )
    return f"--ssl_config_file={file}"


def status_over(channel: grpc.Channel) -> int:
    request = messages.GetModelStatusRequest()
    request.model_spec.name = "m"
    call: Callable[..., bytes] = channel.unary_unary(methods.GET_MODEL_STATUS.path)
    answer = call(request.SerializeToString(), timeout=10)
    (status,) = messages.GetModelStatusResponse.FromString(answer).model_version_status
    version: int = status.version
    return version


def credentials(*, client: bool) -> grpc.ChannelCredentials:
    own = {}
    if client:
        own = {
            "private_key": (CERTIFICATES / "client.key").read_bytes(),
            "certificate_chain": (CERTIFICATES / "client.pem").read_bytes(),
        }
    return grpc.ssl_channel_credentials((CERTIFICATES / "ca.pem").read_bytes(), **own)


def refused(server: ServerProcess, how: grpc.ChannelCredentials | None) -> bool:
    address = f"localhost:{server.grpc_port}"
    unopened = grpc.insecure_channel(address) if how is None else grpc.secure_channel(address, how)
    with unopened as channel, pytest.raises(grpc.RpcError) as caught:
        status_over(channel)
    code: grpc.StatusCode = caught.value.code()
    return code is grpc.StatusCode.UNAVAILABLE


def test_tls_by_ssl_config(tmp_path: Path, base_path: Path) -> None:
    with serving(tmp_path, *one_model(base_path), ssl_config(tmp_path, client_verify=False)) as up:
        up.wait_open()
        address = f"localhost:{up.grpc_port}"
        with grpc.secure_channel(address, credentials(client=False)) as channel:
            assert status_over(channel) == 1
        assert refused(up, None)


def test_mutual_tls_by_ssl_config(tmp_path: Path, base_path: Path) -> None:
    with serving(tmp_path, *one_model(base_path), ssl_config(tmp_path, client_verify=True)) as up:
        up.wait_open()
        address = f"localhost:{up.grpc_port}"
        with grpc.secure_channel(address, credentials(client=True)) as channel:
            assert status_over(channel) == 1
        assert refused(up, credentials(client=False))


def test_missing_ssl_config_ends_the_start(tmp_path: Path, base_path: Path) -> None:
    """The real server loads its models first and then aborts."""
    flag = f"--ssl_config_file={tmp_path}/none"
    with serving(tmp_path, *one_model(base_path), flag) as server:
        assert server.process.wait(60) == 255
        assert f"Error: NOT_FOUND: {tmp_path}/none; No such file" in server.log


def test_configuration_file_is_read_again(tmp_path: Path, base_path: Path) -> None:
    write_saved_model(tmp_path / "n" / "5", addend=10)
    file = tmp_path / "models.config"

    def write(*names: str) -> None:
        entries = "".join(
            f"config {{ name: '{name}' base_path: '{tmp_path}/{name}' "
            "model_platform: 'tensorflow' }"
            for name in names
        )
        staging = tmp_path / "staging"
        staging.write_text(f"model_config_list {{ {entries} }}")
        staging.rename(file)

    write("m")
    flags = (f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1")
    with serving(tmp_path, *flags) as server:
        server.wait_open()
        write("m", "absent")
        wait_until(lambda: "Could not find base path" in server.log, timeout=30)
        write("m", "n")  # the error is corrected
        wait_until(lambda: "version 5 of n is AVAILABLE" in server.log, timeout=30)
        assert server.predict(2.0, model="n") == 11.0
        file.write_text("nonsense {")
        wait_until(lambda: "models.config is not applied: Invalid protobuf file" in server.log)
        assert server.predict(2.0) == 3.0


def write_warmup(base_path: Path, name: str, value: float) -> None:
    from tensorflow.python.lib.io import _pywrap_record_io as record_io

    file = base_path / "1" / WARMUP_FILE
    file.parent.mkdir()
    entry = messages.PredictionLog()
    entry.predict_log.request.model_spec.name = "m"
    tensor = entry.predict_log.request.inputs[name]
    tensor.dtype = messages.DataType.DT_FLOAT
    tensor.float_val.append(value)
    tensor.tensor_shape.dim.add(size=1)
    writer = record_io.RecordWriter(str(file), record_io.RecordWriterOptions(""))
    writer.write(entry.SerializeToString())
    writer.close()


def test_failing_warmup_record_fails_the_load(tmp_path: Path, base_path: Path) -> None:
    write_warmup(base_path, "nope", 1)
    with serving(tmp_path, *one_model(base_path), "--max_num_load_retries=0") as server:
        assert server.process.wait(60) == 255
        assert "INVALID_ARGUMENT: Signature input alias: x(feed name: x:0)" in server.log


def test_warmup_requests_are_examples_in_the_description(tmp_path: Path, base_path: Path) -> None:
    write_warmup(base_path, "x", 4.5)
    with serving(tmp_path, *one_model(base_path)) as server:
        server.wait_open()
        with urlopen(f"http://127.0.0.1:{server.rest_port}/openapi.json", timeout=30) as answer:
            described = json.load(answer)
    body = described["components"]["requestBodies"]["m"]["content"]["application/json"]
    assert body["examples"]["serving_default"]["value"]["inputs"] == {"x": [4.5]}


def test_port_out_of_range_is_refused(tmp_path: Path, base_path: Path) -> None:
    """gRPC would listen on port 70000 - 65536."""
    with serving(tmp_path, *one_model(base_path), ports=(70000, 0)) as server:
        assert server.process.wait(60) == 255
        assert "a port must be between 0 and 65535, got 70000" in server.log
