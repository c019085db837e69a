"""Logs of the embedded server: what is logged, over both transports, and what becomes of it."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from shortlist.clients.connection import Security
from shortlist.clients.request_log import framing
from shortlist.clients.request_log.files import LogFile
from shortlist.clients.request_log.reading import log_files, read_log
from shortlist.clients.request_log.records import LogRecord
from shortlist.clients.request_log.user_ids import UserIds, hash_user_id
from shortlist.clients.wire import messages, methods
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.api.request_log import (
    RequestLogOptions,
    RequestLogs,
    log_settings,
)
from shortlist.serving.embedded.grpc.server import start_grpc
from shortlist.serving.embedded.rest.handler import RestHandler, RestOptions
from shortlist.serving.embedded.rest.http.connection import HttpRequest
from tests.unit.serving.embedded.doubling import Doubling
from tests.unit.serving.embedded.static_source import StaticSource

KEY = bytes(range(32))


def config(prefix: Path | str, rate: float = 1.0, *, type_: str = "") -> messages.ModelServerConfig:
    text = (
        'model_config_list { config { name: "m" base_path: "/m" logging_config { '
        f'log_collector_config {{ type: "{type_}" filename_prefix: "{prefix}" }} '
        f"sampling_config {{ sampling_rate: {rate} }} }} }} }}"
    )
    return text_format.Parse(text, messages.ModelServerConfig())


class Asked:
    """Both transports of a model `m` that doubles `x`, with logs."""

    def __init__(self, options: RequestLogOptions | None = None) -> None:
        self.metrics = Metrics()
        self.logs = RequestLogs(self.metrics, options)
        source = StaticSource({"m": {1: Doubling()}}, {"m": {"canary": 1}})
        self._rest = RestHandler(source, RestOptions(), self.metrics, self.logs)
        self._server = start_grpc(
            source, host="127.0.0.1", port=0, metrics=self.metrics, logs=self.logs
        )
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._server.port}")

    def rest(self, body: Any, path: str = "/v1/models/m:predict") -> int:
        request = HttpRequest(
            method=b"POST",
            target=path.encode(),
            headers={},
            body=json.dumps(body).encode(),
            keep_alive=True,
        )
        return self._rest(request).status

    def grpc(
        self, *values: float, label: str = "", metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        request = messages.PredictRequest()
        request.model_spec.name = "m"
        if label:
            request.model_spec.version_label = label
        request.inputs["x"].dtype = messages.DataType.DT_FLOAT
        request.inputs["x"].float_val.extend(values)
        request.inputs["x"].tensor_shape.dim.add(size=len(values))
        call: Any = self._channel.unary_unary(methods.PREDICT.path)
        call(request.SerializeToString(), timeout=10, metadata=metadata)

    def counted(self, status: str) -> int:
        line = f':tensorflow:serving:request_log_count{{model_name="m",status="{status}"}} '
        page = self.metrics.page().decode().splitlines()
        return sum(int(found.removeprefix(line)) for found in page if found.startswith(line))

    def close(self) -> None:
        self._channel.close()
        self._server.stop(0)
        self.logs.close()


@contextmanager
def asking(options: RequestLogOptions | None = None) -> Iterator[Asked]:
    asked = Asked(options)
    try:
        yield asked
    finally:
        asked.close()


def records(path: Path) -> list[LogRecord]:
    return list(read_log(path))


def test_answers_of_both_transports_are_logged_alike(tmp_path: Path) -> None:
    with asking() as asked:
        asked.logs.update(config(tmp_path / "m"))
        asked.grpc(1, 2, label="canary")
        assert asked.rest({"inputs": {"x": [1, 2]}}, "/v1/models/m/labels/canary:predict") == 200
        assert asked.rest({"instances": [3, 4]}) == 200
    first, second, third = records(tmp_path)
    assert [record.transport for record in (first, second, third)] == ["GRPC", "REST", "REST"]
    for record in (first, second):
        assert (record.kind, record.model, record.version) == ("predict", "m", 1)
        assert (record.label, record.signature) == ("canary", "serving_default")
        assert record.inputs == {"x": [1.0, 2.0]}
        assert record.outputs == {"y": [2.0, 4.0]}
        assert (record.sampling_rate, record.origin) == (1.0, "shortlist-server")
        assert record.latency is not None
        assert 0 < record.latency < 10
        assert record.output_tensors["y"].array().dtype == np.float32
    assert (third.label, third.inputs) == (None, {"x": [3.0, 4.0]})
    assert first.time <= second.time <= third.time
    assert first.message.log_metadata.timestamp_secs == int(first.time)


def test_failed_requests_and_other_models_are_not_logged(tmp_path: Path) -> None:
    with asking() as asked:
        asked.logs.update(config(tmp_path / "m"))
        assert asked.rest({"inputs": {"x": [-1]}}) == 400
        assert asked.rest({"inputs": {"x": [1]}}, "/v1/models/other:predict") == 404
        with pytest.raises(grpc.RpcError):
            asked.grpc(-1)
        asked.grpc(1)
        asked.logs.close()
        assert len(records(tmp_path)) == 1
        assert asked.counted("OK") == 1
        size = next(tmp_path.iterdir()).stat().st_size
        page = asked.metrics.page().decode()
        line = ':shortlist:serving:request_log_bytes{model_name="m"} '
        assert 0 < int(page.partition(line)[2].split()[0]) <= size


def test_checks_of_rollouts_are_not_logged(tmp_path: Path) -> None:
    """No user asked, so they would count in the figures as users without an id."""
    unlogged = Security(headers={"authorization": "Bearer x"}).unlogged().headers
    assert unlogged is not None
    with asking() as asked:
        asked.logs.update(config(tmp_path / "m"))
        asked.grpc(1, metadata=tuple(unlogged.items()))
        asked.grpc(2)
    assert [record.inputs for record in records(tmp_path)] == [{"x": [2.0]}]


def test_a_share_of_the_requests_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.0, 0.29, 0.3, 0.99])
    monkeypatch.setattr("random.random", lambda: next(draws))
    with asking() as asked:
        asked.logs.update(config(tmp_path / "m", 0.3))
        for value in range(4):
            asked.rest({"inputs": {"x": [value]}})
    assert [record.inputs["x"] for record in records(tmp_path)] == [[0.0], [1.0]]
    assert records(tmp_path)[0].sampling_rate == 0.3


def test_a_log_follows_its_configuration(tmp_path: Path) -> None:
    with asking() as asked:
        asked.grpc(0)
        asked.logs.update(config(tmp_path / "a"))
        asked.grpc(1)
        asked.logs.update(config(tmp_path / "a", 0.999999))  # another rate: the same file
        asked.grpc(2)
        asked.logs.update(config(tmp_path / "b"))
        assert [path.suffix for path in log_files(tmp_path / "a*")] == [".gz"]  # finished
        asked.grpc(3)
        asked.logs.update(config(tmp_path / "b", 0))
        asked.grpc(4)
        assert [path.suffix for path in log_files(tmp_path)] == [".gz", ".gz"]
        asked.logs.update(messages.ModelServerConfig())
        asked.logs.update(config(f"{tmp_path}/"))  # a folder: the model's name is the rest
        asked.grpc(5)
    assert [record.inputs["x"] for record in records(tmp_path / "a*")] == [[1.0], [2.0]]
    assert [record.inputs["x"] for record in records(tmp_path / "b*")] == [[3.0]]
    assert [record.inputs["x"] for record in records(tmp_path / "m-*")] == [[5.0]]


@pytest.mark.parametrize(
    ("refused", "code", "message"),
    [
        (config("/x", type_="kafka"), Code.NOT_FOUND, "LogCollector::Factory for type: kafka"),
        (config("logs/m"), Code.INVALID_ARGUMENT, "absolute path .* got filename_prefix=logs/m"),
        (config(""), Code.INVALID_ARGUMENT, "needs an absolute path"),
        (config("/x\0/y"), Code.INVALID_ARGUMENT, "control characters, got '/x.x00/y'"),
        (config("/x\x1b[31m"), Code.INVALID_ARGUMENT, "control characters"),
        (config("/x", 1.5), Code.INVALID_ARGUMENT, "must be between 0 and 1, got 1.5"),
        (config("/x", -1), Code.INVALID_ARGUMENT, "must be between 0 and 1, got -1"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_changes_nothing(
    tmp_path: Path, refused: messages.ModelServerConfig, code: Code, message: str
) -> None:
    with asking() as asked:
        asked.logs.update(config(tmp_path / "m"))
        with pytest.raises(StatusError, match=message) as caught:
            asked.logs.update(refused)
        assert caught.value.code is code
        asked.grpc(1)
    assert len(records(tmp_path)) == 1


def test_a_reload_by_a_client_chooses_no_new_folder(tmp_path: Path) -> None:
    def code(asked: Asked, prefix: str) -> str:
        request = messages.ReloadConfigRequest(config=config(prefix))
        call: Any = asked._channel.unary_unary(methods.HANDLE_RELOAD_CONFIG_REQUEST.path)
        try:
            call(request.SerializeToString(), timeout=10)
        except grpc.RpcError as error:
            refused: Any = error
            return str(refused.code().name)
        return "OK"

    with asking() as asked:
        assert code(asked, f"{tmp_path}/logs/m") == "PERMISSION_DENIED"
        asked.logs.update(config(tmp_path / "logs" / "m"))  # by the configuration file
        assert code(asked, f"{tmp_path}/logs/other") == "OK"
        assert code(asked, f"{tmp_path}/logs/below/m") == "OK"
        assert code(asked, f"{tmp_path}/logs/../m") == "PERMISSION_DENIED"
        assert code(asked, f"{tmp_path}/m") == "PERMISSION_DENIED"


def test_a_missing_library_is_an_error_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    framing.checksum.cache_clear()
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    try:
        assert log_settings(config("/x", 0)) == {}
        with pytest.raises(StatusError, match=r"pip install 'shortlist\[log\]'"):
            log_settings(config("/x"))
    finally:
        framing.checksum.cache_clear()


def test_user_ids_can_be_hashed_or_dropped(tmp_path: Path) -> None:
    user_ids = UserIds(ids="hash", key=KEY, inputs=("x",))
    with asking(RequestLogOptions(user_ids=user_ids)) as asked:
        asked.logs.update(config(tmp_path / "m"))
        asked.grpc(1)
        asked.rest({"inputs": {"x": [1]}})
    assert [record.inputs["x"] for record in records(tmp_path)] == [
        [hash_user_id("1.0", KEY)],
        [hash_user_id("1.0", KEY)],
    ]


def test_examples_and_several_tasks_are_logged_with_their_messages(tmp_path: Path) -> None:
    logs = RequestLogs()
    logs.update(config(tmp_path / "m"))
    requests = {
        "classify": messages.ClassificationRequest(),
        "regress": messages.RegressionRequest(),
        "multi_inference": messages.MultiInferenceRequest(),
    }
    for kind, request in requests.items():
        logged = logs.begin("m")
        assert logged is not None
        exchange = request.SerializeToString(), b""
        logged.answered(kind, "GRPC", Doubling(), ("scored", ""), exchange)
    logs.close()
    assert [(record.kind, record.signature) for record in records(tmp_path)] == [
        (kind, "scored") for kind in requests
    ]


# --- failures: requests go on, and what is not logged is counted ------------------------------


def test_a_full_disk_stops_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(stream: Any, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shortlist.clients.request_log.files._write_all", refuse)
    with asking() as asked:
        asked.logs.update(config(tmp_path / "m"))
        for _ in range(5):
            asked.grpc(1)
            assert asked.rest({"inputs": {"x": [1]}}) == 200
        asked.logs.close()
        assert asked.counted("DATA_LOSS") == 10
        assert asked.counted("OK") == 0
    assert caplog.text.count("cannot be written (No space left on device)") == 1


def test_a_folder_that_is_removed_or_refused_stops_no_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with asking() as asked:
        asked.logs.update(config(tmp_path / "file" / "m"))
        asked.grpc(1)
        asked.logs.update(config(tmp_path / "logs" / "m"))
        assert asked.counted("DATA_LOSS") == 1
        asked.grpc(2)
        asked.logs.close()
        assert asked.counted("OK") == 1


def test_a_slow_disk_drops_records_and_delays_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    write = LogFile.write

    def slow(self: LogFile, data: Any) -> int:
        free.wait(20)
        return write(self, data)

    monkeypatch.setattr(LogFile, "write", slow)
    with asking(RequestLogOptions(queue_bytes=3000)) as asked:
        asked.logs.update(config(tmp_path / "m"))
        for _ in range(30):
            assert asked.rest({"inputs": {"x": [1]}}) == 200
        dropped = asked.counted("RESOURCE_EXHAUSTED")
        assert 20 < dropped < 30
        free.set()
        asked.logs.close()
        assert asked.counted("OK") == 30 - dropped
    assert len(records(tmp_path)) == 30 - dropped


def test_a_log_in_the_root_folder_allows_no_other_folder(tmp_path: Path) -> None:
    """`filename_prefix: "/logs"` is easily written for "/logs/"."""
    logs = RequestLogs()
    logs.update(config("/unlikely-name"))
    logs.check_folders(config("/unlikely-name"))
    with pytest.raises(StatusError, match="names the folder") as caught:
        logs.check_folders(config(tmp_path / "m"))
    assert caught.value.code is Code.PERMISSION_DENIED
