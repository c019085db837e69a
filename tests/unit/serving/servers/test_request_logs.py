"""Request logs of `shortlist serve`: asked for, continued or ended."""

from pathlib import Path

import pytest

from shortlist.clients.wire.messages import LoggingConfig
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.serve import ServeRequest, _request_logs


def log(prefix: str, rate: float) -> LoggingConfig:
    config = LoggingConfig()
    config.log_collector_config.filename_prefix = prefix
    config.sampling_config.sampling_rate = rate
    return config


def test_each_servable_gets_a_log_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = ServeRequest(repository=tmp_path, request_log=Path("logs"), request_log_rate=0.1)
    assert _request_logs(request, tmp_path / "none", ["a", "b"]) == {
        "a": log(f"{tmp_path}/logs/a", 0.1),
        "b": log(f"{tmp_path}/logs/b", 0.1),
    }


def test_a_log_needs_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "logs"
    file.touch()
    request = ServeRequest(repository=tmp_path, request_log=file)
    with pytest.raises(
        RepositoryError, match=r"--request-log takes a folder, and .*logs is a file"
    ):
        _request_logs(request, tmp_path / "none", ["a"])


def test_logs_go_on_until_they_are_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "models.config"
    write_config(file, tmp_path, {"m": ModelEntry()}, {"m": log("/logs/m", 0.5)})

    def logs(**options: object) -> dict[str, LoggingConfig]:
        return _request_logs(
            ServeRequest(repository=tmp_path, **options),  # type: ignore[arg-type]
            *(file, ["m"]),
        )

    assert logs() == {"m": log("/logs/m", 0.5)}
    assert logs(no_request_log=True) == {}
    assert logs(kind=ServerKind.BINARY) == {}  # it would not start with it
    assert caplog.messages == [
        "requests to m are no longer logged: the binary server has no collector"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_log": Path("x"), "no_request_log": True}, "not both"),
        ({"request_log": Path("x"), "request_log_rate": 0}, "above 0 and at most 1, got 0"),
        ({"request_log": Path("x"), "request_log_rate": 2}, "above 0 and at most 1, got 2"),
        ({"request_log_rate": 0.5}, "needs --request-log"),
        ({"request_log": Path("x"), "kind": ServerKind.DOCKER}, "the docker server has no"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ServeRequest(repository=tmp_path, **options)  # type: ignore[arg-type]
