"""Request logs of servers in separate processes."""

import signal
from pathlib import Path

import grpc
import pytest

from shortlist.clients.request_log.reading import log_files, read_log
from tests.support.saved_models import write_saved_model
from tests.support.server_process import serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def write_config(folder: Path, prefix: Path, rate: float) -> str:
    staging = folder / "staging"
    staging.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{folder}/m" '
        f'model_platform: "tensorflow" logging_config {{ log_collector_config {{ '
        f'filename_prefix: "{prefix}" }} sampling_config {{ sampling_rate: {rate} }} }} }} }}'
    )
    staging.rename(folder / "models.config")
    return f"--model_config_file={folder / 'models.config'}"


def count(folder: Path) -> int:
    return sum(1 for _ in read_log(folder)) if any(folder.glob("*")) else 0


def test_a_server_logs_until_it_ends_or_is_told_to_stop(tmp_path: Path) -> None:
    write_saved_model(tmp_path / "m" / "1", addend=2)
    logs = tmp_path / "logs"
    flag = write_config(tmp_path, logs / "m", 1)
    with serving(tmp_path, flag, "--model_config_file_poll_wait_seconds=1") as server:
        server.wait_open()
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            server.predict(2.0)
            server.predict_slowly(1, channel).result()
            wait_until(lambda: count(logs) == 2)
            write_config(tmp_path, logs / "m", 0)
            wait_until(lambda: "is closed" in server.log, timeout=30)
            server.predict(3.0)
            write_config(tmp_path, logs / "again", 1)
            wait_until(lambda: "again-*, sampling rate 1" in server.log, timeout=30)
            server.predict(4.0)
            assert server.terminate() == -signal.SIGTERM
    assert [path.suffix for path in log_files(logs)] == [".gz", ".gz"]
    first, second, third = read_log([logs / "m-*", logs / "again-*"])
    assert (first.inputs, first.outputs) == ({"x": [2.0]}, {"y": [3.0]})
    assert (second.signature, second.transport) == ("slow", "GRPC")
    assert (third.inputs, third.version, third.transport) == ({"x": [4.0]}, 1, "REST")


def test_a_killed_server_leaves_a_readable_log(tmp_path: Path) -> None:
    write_saved_model(tmp_path / "m" / "1", addend=2)
    with serving(tmp_path, write_config(tmp_path, tmp_path / "logs" / "m", 1)) as server:
        server.wait_open()
        for value in range(20):
            server.predict(value)
        wait_until(lambda: count(tmp_path / "logs") == 20)
        server.process.kill()
        server.process.wait(10)
    assert [record.inputs["x"] for record in read_log(tmp_path / "logs")] == [
        [float(value)] for value in range(20)
    ]


def test_a_config_that_cannot_be_followed_ends_the_start(tmp_path: Path) -> None:
    write_saved_model(tmp_path / "m" / "1", addend=2)
    with serving(tmp_path, write_config(tmp_path, Path("relative"), 1)) as server:
        assert server.process.wait(60) == 255
        assert "needs an absolute path as filename_prefix" in server.log
