"""A sharded model on two servers, one of which is killed while labels move, under load."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shortlist.clients import GrpcClient, RetryPolicy, ShardedClient
from shortlist.clients.cli.main import main
from shortlist.clients.contract import shard_name
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NAME = "retrieval_ivf"
SHARDS = [shard_name(NAME, number, 2) for number in range(2)]


def publish_two_versions(root: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.support.servables", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=240)
    for _ in range(2):
        with ModelRepository(root).publisher(SHARDS) as publisher:
            for shard in SHARDS:
                shutil.copytree(folder / "good", publisher.stage(shard), dirs_exist_ok=True)
            publisher.publish()


def options(root: Path, shard: str) -> ServerOptions:
    config = root / ".serving" / f"{shard}.config"
    write_config(config, root, {shard: ModelEntry(versions=(1,))})
    return ServerOptions(
        model_config_file=config,
        repository=root,
        grpc_port=claim_port(0, option="--port"),
        rest_port=claim_port(0, option="--rest-port"),
        flags=("--max_num_load_retries=0",),
        log_file=root.parent / f"{shard}.log",
    )


@dataclass
class Load:
    """Requests of applications, all the time."""

    addresses: list[str]
    answers: Counter[tuple[int | None, tuple[int, ...]]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        client = ShardedClient.from_addresses(
            self.addresses, model=NAME, partial="allow", retry=RetryPolicy(max_attempts=2)
        )
        with client:
            while not self.stop.wait(0.01):
                try:
                    (answer,) = client.retrieve(["user-1"], k=3, label="stable")
                    self.answers[answer.version, answer.shards_missing] += 1
                except Exception as exc:
                    self.failures.append(repr(exc))


def test_a_shard_that_is_killed_while_labels_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "models"
    publish_two_versions(root, tmp_path / "servables")
    served = [options(root, shard) for shard in SHARDS]
    addresses = [server.grpc_address for server in served]
    where = ["--repository", str(root), "--poll-interval", "0.05", "--timeout", "60"]
    for server in served:
        where += ["--address", server.grpc_address, "--config", str(server.model_config_file)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(ModelServer(ServerKind.EMBEDDED, server)) for server in served
        ]
        for address, shard in zip(addresses, SHARDS, strict=True):
            with GrpcClient(address, model=shard) as client:
                client.wait_until_available(timeout=120)
        assert main(["promote", "1", *where]) == 0
        assert "retrieval_ivf_of2: stable 1, canary 1" in capsys.readouterr().out
        load = Load(addresses)
        thread = threading.Thread(target=load.run)
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(load.stop.set)

        assert main(["canary", "2", "--servable", SHARDS[0], *where]) == 0
        real, killed = ReplicaClient.reload, running[1].pid
        assert killed is not None

        def reload(self: ReplicaClient, config: ModelServerConfig) -> None:
            if self.address == addresses[1]:
                os.kill(killed, signal.SIGKILL)
            real(self, config)

        with monkeypatch.context() as patch:
            patch.setattr(ReplicaClient, "reload", reload)
            assert main(["promote", *where]) == 1
        assert "did not apply the step" in capsys.readouterr().err
        assert main(["promote", *where]) == 1
        assert "do not answer" in capsys.readouterr().err

        stack.enter_context(ModelServer(ServerKind.EMBEDDED, served[1]))
        with GrpcClient(addresses[1], model=SHARDS[1]) as client:
            client.wait_until_available(timeout=120)
        assert main(["promote", *where]) == 0
        assert "retrieval_ivf_of2: stable 2, canary 2, previous 1" in capsys.readouterr().out
        assert main(["rollout", "status", *where]) == 0
        assert "retrieval_ivf_of2" in capsys.readouterr().out
        deadline = time.monotonic() + 60
        while not load.answers[2, ()] and time.monotonic() < deadline:
            time.sleep(0.05)  # gRPC connects again
        load.stop.set()
        thread.join(60)
    assert load.failures == []
    assert load.answers[1, ()] > 0  # before
    assert load.answers[2, (1,)] > 0  # without the shard that was killed
    assert load.answers[2, ()] > 0  # after
