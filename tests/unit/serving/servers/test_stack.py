"""`shortlist stack`, up to the point at which it asks a Docker engine."""

import os
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.serving.errors import ModelServerError, RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, read_config, write_config
from shortlist.serving.servers import compose
from shortlist.serving.servers.stack import Stack
from tests.support.programs import install

FAKE_DOCKER = """
echo "$@" >> {calls}
case "$1" in
    version) {version} ;;
    ps) echo abc ;;
    inspect) echo '[{{"Name": "/shortlist-serving-1", "State": {state}}},
        {{"Name": "/shortlist-scann-1", "State": {state}}}]' ;;
    logs) {logs} ;;
esac
exit 0
"""
HEALTHY = '{"Status": "running", "Health": {"Status": "healthy"}}'
STARTING = '{"Status": "running", "Health": {"Status": "starting"}}'
ENDED = '{"Status": "restarting"}'


@pytest.fixture(autouse=True)
def _fresh_search_for_compose() -> None:
    compose.compose_command.cache_clear()


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    root = tmp_path / "models"
    for model, graph in (("retrieval_ivf", b"core ops"), ("retrieval_scann", b"Scann>Search")):
        folder = root / model / "3"
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(graph)
    return ModelRepository(root)


def install_docker(
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "exit 0",
    state: str = HEALTHY,
    logs: str = "echo 'Could not find base path'",
) -> None:
    program = calls.parent / "bin/docker"
    program.parent.mkdir()
    script = FAKE_DOCKER.format(calls=calls, version=version, state=state, logs=logs)
    install(program.parent, program.name, script)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_new_models_become_stable_in_the_configuration_of_the_server_that_can_run_them(
    repository: ModelRepository,
) -> None:
    assert compose.write_missing_models(repository) == ["retrieval_ivf", "retrieval_scann"]
    folder = repository.root / compose.CONFIG_FOLDER
    for file, name in (
        (compose.STOCK_CONFIG, "retrieval_ivf"),
        (compose.SCANN_CONFIG, "retrieval_scann"),
    ):
        [model] = read_config(folder / file).model_config_list.config
        assert model.name == name
        assert model.base_path == str(repository.root / name)
        assert list(model.model_version_policy.specific.versions) == [3]
        assert dict(model.version_labels) == {"stable": 3}


def test_existing_entries_are_left_to_rollouts(
    repository: ModelRepository,
) -> None:
    path = repository.root / compose.CONFIG_FOLDER / compose.STOCK_CONFIG
    entry = ModelEntry(versions=(1, 2), labels={"stable": 1, "canary": 2})
    write_config(path, repository.root, {"retrieval_ivf": entry})
    before = path.read_text()
    assert compose.write_missing_models(repository) == ["retrieval_scann"]
    assert path.read_text() == before
    assert compose.write_missing_models(repository) == []


def test_odd_shards_go_to_a_server_of_their_own(repository: ModelRepository) -> None:
    with pytest.raises(RepositoryError, match="no shards for the profile sharded; publish some"):
        compose.write_missing_models(repository, sharded=True)
    for number in range(3):
        folder = repository.root / f"big_ivf_{number}of3/1"
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"core ops")
    compose.write_missing_models(repository, sharded=True, request_log="/logs")
    folder = repository.root / compose.CONFIG_FOLDER
    logs = [
        {model.name: model.logging_config for model in read_config(file).model_config_list.config}
        for file in (folder / compose.STOCK_CONFIG, folder / compose.SHARD_CONFIG)
    ]
    assert [list(each) for each in logs] == [
        ["big_ivf_0of3", "big_ivf_2of3", "retrieval_ivf"],
        ["big_ivf_1of3"],
    ]
    logged = logs[0]["retrieval_ivf"]
    assert logged.log_collector_config.filename_prefix == "/logs/retrieval_ivf"
    assert logged.sampling_config.sampling_rate == 1.0


def test_an_empty_repository_says_how_to_publish(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="shortlist export"):
        compose.write_missing_models(ModelRepository(tmp_path))


def test_up_names_profiles_and_returns_when_all_are_healthy(
    repository: ModelRepository, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_docker(calls, monkeypatch)
    Stack(repository.root, profiles=["scann"]).up(timeout=10)
    [up] = [line for line in calls.read_text().splitlines() if " up " in line]
    assert "--project-name=shortlist --profile=scann up --detach" in up


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (STARTING, r"(?s)shortlist-serving-1 is starting after 0\.2 s.*Could not find base path"),
        (ENDED, r"(?s)shortlist-serving-1 is restarting; .*Could not find base path"),
    ],
)
def test_up_shows_the_output_of_a_container_that_is_not_ready(
    repository: ModelRepository,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    message: str,
) -> None:
    install_docker(calls, monkeypatch, state=state)
    with pytest.raises(ModelServerError, match=message):
        Stack(repository.root).up(timeout=0.2)


def test_up_names_every_container_with_the_versions_that_it_did_not_load(
    repository: ModelRepository, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "Loading servable: {name: $5 version: 3} failed: NOT_FOUND: Op type"
    install_docker(calls, monkeypatch, state=ENDED, logs=f'set -- "$@" x $3; echo "{line}"')
    with pytest.raises(ModelServerError) as error:
        Stack(repository.root).up(timeout=10)
    assert str(error.value).splitlines() == [
        f"{name} is restarting: it did not load {name} version 3 (NOT_FOUND: Op type)"
        for name in ("shortlist-serving-1", "shortlist-scann-1")
    ]


def test_without_an_engine_one_line_says_so(
    repository: ModelRepository,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_docker(calls, monkeypatch, version="echo 'Cannot connect' >&2; exit 1")
    assert main(["stack", "up", f"--repository={repository.root}"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: no Docker engine answers (Cannot connect); start one" in error


def test_publish_mounts_the_data_and_passes_flags_on(
    repository: ModelRepository, calls: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_docker(calls, monkeypatch)
    data = tmp_path / "plays.csv"
    data.touch()
    words = [
        *("stack", "publish", f"--repository={repository.root}", f"--data={data}"),
        *("--", "--epochs=1"),
    ]
    assert main(words) == 0
    [run] = [line for line in calls.read_text().splitlines() if " run " in line]
    assert run.endswith(
        f"--profile=export run --rm --volume={data}:{data}:ro export export "
        f"--repository {repository.root} --data {data} --epochs=1"
    )


def test_an_unknown_profile_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no profile 'grafana'; there are: scann, sharded, monitoring, tls"
    ):
        Stack(tmp_path, profiles=["grafana"])
