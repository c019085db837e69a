"""The verbs on the embedded server: good versions get through, bad ones do not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from shortlist.clients import GrpcClient, Tls, contract
from shortlist.clients.cli.main import main
from shortlist.clients.request_log.reading import read_log, read_records
from shortlist.clients.wire.messages import LogCollectorConfig, LoggingConfig, SamplingConfig
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer
from shortlist.serving.servers.serve import ServeRequest, running
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CERTIFICATES = ROOT / "tests" / "support" / "certificates"
NAME = "retrieval_ivf"


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("servables")
    subprocess.run(
        [sys.executable, "-m", "tests.support.servables", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=240,
    )
    return folder


def publish(root: Path, source: Path) -> int:
    with ModelRepository(root).publisher([NAME]) as publisher:
        shutil.copytree(source, publisher.stage(NAME), dirs_exist_ok=True)
        publisher.publish()
    return publisher.version


@contextmanager
def started(root: Path, *flags: str, tls: Tls | bool = False) -> Iterator[tuple[str, list[str]]]:
    """A server of the repository; its gRPC address and the options that lead to it."""
    config = root / CONFIG_FILE
    if not config.exists():
        write_config(config, root, {NAME: ModelEntry(versions=(1,))})
    options = ServerOptions(
        model_config_file=config,
        repository=root,
        grpc_port=claim_port(0, option="--port"),
        rest_port=claim_port(0, option="--rest-port"),
        flags=("--max_num_load_retries=0", *flags),
        log_file=root.parent / "server.log",
    )
    with ModelServer(ServerKind.EMBEDDED, options) as server:
        with GrpcClient(server.grpc_address, model=NAME, tls=tls) as client:
            client.wait_until_available(timeout=120)
        where = ["--repository", str(root), "--address", server.grpc_address]
        yield server.grpc_address, [*where, "--poll-interval", "0.05", "--timeout", "60"]


def version_of(address: str, label: str) -> int | None:
    with GrpcClient(address, model=NAME) as client:
        return client.predict({contract.USER_ID: ["user-1"]}, label=label).version


def entry(root: Path) -> ModelEntry | None:
    return ConfigFile(root / CONFIG_FILE).entry(NAME)


@pytest.mark.parametrize("polled", [False, True], ids=["reload", "polled file"])
def test_a_rollout_and_its_rollback(
    servables: Path, tmp_path: Path, polled: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "models"
    publish(root, servables / "good")
    flags = ["--model_config_file_poll_wait_seconds=1"] if polled else []
    how = ["--polled"] if polled else []
    with started(root, *flags) as (address, where):
        assert publish(root, servables / "good") == 2
        assert main(["canary", "2", *where, *how, "--percent", "10"]) == 0
        assert (version_of(address, "stable"), version_of(address, "canary")) == (1, 2)
        shares = json.loads((root / ".serving" / "split.json").read_text())
        assert shares == {NAME: {"stable": 0.9, "canary": 0.1}}
        assert main(["promote", *where, *how]) == 0
        assert (version_of(address, "stable"), version_of(address, "previous")) == (2, 1)
        assert main(["rollout", "status", *where, *how]) == 0
        assert main(["rollback", *where, *how, "--why", "a test"]) == 0
        assert version_of(address, "stable") == 1
        assert main(["rollback", *where, *how]) == 1
        assert "no earlier version is known; in the repository: 2" in capsys.readouterr().err
    assert entry(root) == ModelEntry(versions=(1,), labels={"stable": 1, "canary": 1})


def test_a_rollout_over_mutual_tls(
    servables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "models"
    publish(root, servables / "good")
    files = {name: CERTIFICATES / name for name in ("ca.pem", "client.pem", "client.key")}
    keys = {
        "server_key": (CERTIFICATES / "server.key").read_text(),
        "server_cert": (CERTIFICATES / "server.pem").read_text(),
        "custom_ca": files["ca.pem"].read_text(),
    }
    config = tmp_path / "ssl.config"
    config.write_text(
        "\n".join(f"{name}: {json.dumps(pem)}" for name, pem in keys.items())
        + "\nclient_verify: true\n"
    )
    tls = Tls(ca=files["ca.pem"], certificate=files["client.pem"], private_key=files["client.key"])
    secure = ["--ca", str(files["ca.pem"]), "--certificate", str(files["client.pem"])]
    secure += ["--private-key", str(files["client.key"]), "--header", "authorization=Bearer x"]
    with started(root, f"--ssl_config_file={config}", tls=tls) as (address, where):
        publish(root, servables / "good")
        assert main(["canary", "2", *where, *secure]) == 0
        assert main(["promote", *where, *secure]) == 0
        with GrpcClient(address, model=NAME, tls=tls) as client:
            assert client.predict({contract.USER_ID: ["u"]}, label="stable").version == 2
        servers = ["--repository", str(root), "--address", address]
        capsys.readouterr()
        assert main(["versions", *servers, *secure]) == 0
        assert "AVAILABLE" in capsys.readouterr().out
        assert main(["rollout", "status", *where]) != 0  # plain text does not reach it


def test_a_restarted_server_has_the_same_labels(servables: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish(root, servables / "good")
    with started(root) as (_, where):
        publish(root, servables / "good")
        assert main(["canary", "2", *where]) == 0
    publish(root, servables / "good")  # version 3 is untested
    request = ServeRequest(repository=root, log_file=tmp_path / "again.log", timeout=120)
    with running(request) as (server, selection):
        assert selection.served[0].version == 1
        assert version_of(server.grpc_address, "stable") == 1
        assert version_of(server.grpc_address, "canary") == 2
        with GrpcClient(server.grpc_address, model=NAME) as client:
            assert client.status().available == [2, 1]


def test_an_empty_file_unloads_nothing(
    servables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero bytes are a valid configuration; a reload with one more model would unload the rest."""
    root = tmp_path / "models"
    publish(root, servables / "good")
    with ModelRepository(root).publisher(["other"]) as publisher:
        shutil.copytree(servables / "good", publisher.stage("other"), dirs_exist_ok=True)
        publisher.publish()
    both = {name: ModelEntry(versions=(1,)) for name in (NAME, "other")}
    write_config(root / CONFIG_FILE, root, both)
    with started(root) as (address, where):
        publish(root, servables / "good")
        (root / CONFIG_FILE).write_bytes(b"")
        for verb in (["canary", "2"], ["rollback", "--to", "1"], ["promote", "1"]):
            assert main([*verb, *where, "--servable", NAME]) == 1
            assert f"would unload other on {address}" in capsys.readouterr().err
        assert (root / CONFIG_FILE).read_bytes() == b""
        for name in both:
            with GrpcClient(address, model=name) as client:
                assert client.status().available == [1]
        write_config(root / CONFIG_FILE, root, both)
        assert main(["canary", "2", *where, "--servable", NAME]) == 0
        with GrpcClient(address, model="other") as client:
            assert client.status().available == [1]


def test_servers_that_disagreed_before_are_told(
    servables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "models"
    for _ in range(3):
        publish(root, servables / "good")
    with started(root) as (first, where):
        assert main(["promote", "1", *where]) == 0
        other = tmp_path / "second.config"  # the first server has the repository's file
        write_config(other, root, {NAME: ModelEntry(versions=(2,), labels={"stable": 2})})
        options = ServerOptions(
            model_config_file=other,
            repository=root,
            grpc_port=claim_port(0, option="--port"),
            rest_port=claim_port(0, option="--rest-port"),
            log_file=tmp_path / "second.log",
        )
        with ModelServer(ServerKind.EMBEDDED, options) as second:
            with GrpcClient(second.grpc_address, model=NAME) as client:
                client.wait_until_available(timeout=120)
            all_ = [*where, "--address", second.grpc_address]
            before = entry(root)
            assert main(["canary", "3", *all_]) == 1
            message = capsys.readouterr().err
            assert f"({first}: 1, {second.grpc_address}: 2) before this rollout" in message
            assert "`shortlist rollback --to 1`" in message
            assert entry(root) == before
            assert main(["rollback", "--to", "1", *all_]) == 0
            assert main(["canary", "3", *all_]) == 0
            for address in (first, second.grpc_address):
                assert version_of(address, "stable") == 1
                assert version_of(address, "canary") == 3


@pytest.mark.parametrize("step", [1, 2])
def test_another_process_continues_for_a_killed_controller(
    servables: Path, tmp_path: Path, step: int
) -> None:
    root = tmp_path / "models"
    publish(root, servables / "good")
    with started(root) as (address, where):
        assert main(["rollback", "--to", "1", *where]) == 0  # labels version 1
        publish(root, servables / "good")
        kill_at_step(step, "canary", "2", *where)
        assert version_of(address, "stable") == 1
        assert main(["canary", "2", *where]) == 0
        kill_at_step(1, "promote", *where)
        assert version_of(address, "stable") in (1, 2)
        assert main(["promote", *where]) == 0
        assert version_of(address, "stable") == 2
        assert main(["rollout", "status", *where]) == 0
        kill_at_step(1, "rollback", *where)
        assert main(["rollback", *where]) == 0
        assert version_of(address, "stable") == 1
    assert entry(root) == ModelEntry(versions=(1,), labels={"stable": 1, "canary": 1})


def kill_at_step(step: int, *arguments: str) -> None:
    """Runs a verb in a process of its own and kills it as it begins its n-th step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "shortlist", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    with process, process.stderr as lines:
        begun = 0
        for line in lines:
            begun += line.startswith("now:")
            if begun == step:
                break
        process.kill()
    assert begun == step


def test_no_broken_version_gets_a_label(
    servables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "models"
    publish(root, servables / "good")
    with started(root) as (address, where):
        for damage, reason in (
            ("no variables", "has lost its variables"),
            ("truncated", "did not load"),
            ("failing warm-up", "did not load"),
            ("other answers", "failed its check"),
            ("wrong signature", "failed its check"),
        ):
            version = publish(root, damaged(servables / "good", tmp_path / damage, damage))
            assert main(["canary", str(version), *where]) == 1, damage
            assert reason in capsys.readouterr().err, damage
            for label in ("stable", "canary"):
                assert version_of(address, label) == 1, damage
            assert entry(root) == ModelEntry(versions=(1,), labels={"stable": 1, "canary": 1})
            with GrpcClient(address, model=NAME) as client:
                assert client.status().available == [1], damage


def damaged(source: Path, target: Path, damage: str) -> Path:
    shutil.copytree(source, target)
    golden = target / contract.GOLDEN_FILE
    match damage:
        case "no variables":
            shutil.rmtree(target / "variables")
        case "truncated":
            graph = target / "saved_model.pb"
            graph.write_bytes(graph.read_bytes()[:-100])
        case "failing warm-up":
            (target / contract.WARMUP_FILE).write_bytes(b"no record at all")
        case "other answers":
            golden.write_text(golden.read_text().replace("candidate-3", "candidate-33"))
        case _:
            golden.write_text(golden.read_text().replace("serving_default", "similar"))
    return target


@pytest.mark.parametrize(
    ("kind", "promoted", "reason"),
    [
        ("good", True, "within all limits"),
        ("slow", False, "slow requests"),
        ("failing", False, "errors"),
    ],
)
def test_the_judge_promotes_only_good_versions(
    servables: Path, tmp_path: Path, kind: str, promoted: bool, reason: str
) -> None:
    root = tmp_path / "models"
    publish(root, servables / "good")
    with started(root) as (address, where):
        publish(root, servables / kind)
        record = tmp_path / "record.json"
        limits = ["--max-errors-more", "0.05", "--duration", "12", "--rate", "50"]
        status = main(["canary", "2", *where, "--judge", *limits, "--record", str(record)])
        assert status == (0 if promoted else 1)
        (judgement,) = json.loads(record.read_text())["judgements"].values()
        assert reason in judgement["why"]
        assert version_of(address, "stable") == (2 if promoted else 1)
        assert version_of(address, "canary") == (2 if promoted else 1)


def test_what_a_server_logged_is_read_replayed_and_judged_by(
    servables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log of the embedded server goes through every `shortlist log` command."""
    root, logs = tmp_path / "models", str(tmp_path / "logs")
    publish(root, servables / "good")
    asks = {
        NAME: LoggingConfig(
            log_collector_config=LogCollectorConfig(filename_prefix=f"{logs}/{NAME}"),
            sampling_config=SamplingConfig(sampling_rate=1.0),
        )
    }
    write_config(root / CONFIG_FILE, root, {NAME: ModelEntry(versions=(1,))}, asks)
    with started(root) as (address, where):
        with GrpcClient(address, model=NAME) as client:
            for number in range(40):
                client.retrieve([f"user-{number % 20}"], k=3)
        wait_until(lambda: any(Path(logs).glob("*")) and sum(1 for _ in read_log(logs)) == 40)
        capsys.readouterr()

        def run(*arguments: str) -> Any:
            assert main(["log", *arguments, "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        figures = run("stats", logs)
        assert (figures["requests"], figures["users"]) == (40, 20)
        assert figures["candidates"] == {"10": 40}
        assert main(["log", "show", logs, "-n", "2"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert " 1        -      serving_default  user-19  candidate-0, candidate-1, " in last
        queries = tmp_path / "queries.jsonl"
        run("golden", logs, "--output", str(queries))
        lines = map(json.loads, queries.read_text().splitlines())
        assert {line["user_id"] for line in lines} == {f"user-{number}" for number in range(20)}
        shown = tmp_path / "impressions.parquet"
        assert run("train", logs, "--output", str(shown), "-k", "3")["rows"] == 120
        table = pyarrow.parquet.read_table(shown).to_pydict()
        assert table["candidate_id"][:3] == ["candidate-0", "candidate-1", "candidate-2"]
        assert (table["rank"][:3], table["version"][:3]) == ([1, 2, 3], [1] * 3)

        # The version in use stays as it is; another one gets what it answers.
        assert main(["log", "warmup", logs, "--version-dir", str(root / NAME / "1")]) == 1
        assert "may be in use (the servers' configuration names it)" in capsys.readouterr().err
        assert publish(root, servables / "failing") == 2
        spare = root / NAME / "2"
        made = run("warmup", logs, "--version-dir", str(spare), "--address", address)
        assert made["records"] == 10
        assert sum(made["left_out"].values()) == 10  # users whom it refuses
        assert len(list(read_records(spare / contract.WARMUP_FILE))) == 10

        load = run("replay", logs, "--address", address, "--rate", "100")
        assert (load["requests"], load["failed"]) == (40, 0)
        assert load["from_due"]["p50_ms"] > 0
        wrong = ["log", "replay", logs, "--address", address, "--rate", "9x", "--label", "gone"]
        assert main(wrong) == 1
        assert "label 'gone'" in capsys.readouterr().err

        assert publish(root, servables / "good") == 3
        limits = ["--max-errors-more", "0.05", "--duration", "4", "--rate", "100"]
        judged = ["canary", "3", *where, "--judge", *limits, "--alpha", "0.3", "--queries"]
        assert main([*judged, str(tmp_path / "other" / "*.tfrecord")]) == 1
        assert "no request log at" in capsys.readouterr().err
        assert main([*judged, logs]) == 0
