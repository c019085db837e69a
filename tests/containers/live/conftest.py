"""The whole stack in containers, started once; `make test-containers` runs these tests."""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shortlist.clients import GrpcClient, RestClient, Tls
from shortlist.serving.servers.stack import Stack

# The tests need the images of tests/containers/images.sh.
collect_ignore_glob = [] if os.environ.get("SHORTLIST_CONTAINERS") else ["test_*.py"]

PROJECT = "shortlist-test"
STANDINS = Path(__file__).parents[1] / "standins"
FROM_REGISTRY = os.environ.get("SHORTLIST_CONTAINERS_IMAGES") == "registry"
PORTS = (
    "GRPC_PORT",
    "REST_PORT",
    "SCANN_GRPC_PORT",
    "SCANN_REST_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
    "TLS_REST_PORT",
    "TLS_GRPC_PORT",
)
SMALL = (
    "--epochs=1",
    "--sample-users=200",
    "--sample-candidates=500",
    "--sample-interactions=9000",
)
READY_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """The running stack and its ports."""

    stack: Stack
    ports: dict[str, int]
    credentials: Path

    @property
    def repository(self) -> Path:
        return self.stack.repository

    @property
    def config(self) -> Path:
        return self.repository / ".serving/compose/models.config"

    def address(self, port: str) -> str:
        return f"127.0.0.1:{self.ports[port]}"

    def client(self, transport: str, model: str) -> "RestClient | GrpcClient":
        prefix = "SCANN_" if model.endswith("_scann") else ""
        if transport == "rest":
            return RestClient(self.address(f"{prefix}REST_PORT"), model=model, timeout=20)
        return GrpcClient(self.address(f"{prefix}GRPC_PORT"), model=model, timeout=20)

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        containers = docker(
            "ps",
            "--all",
            "--quiet",
            f"--filter=label=com.docker.compose.project={PROJECT}",
            f"--filter=label=com.docker.compose.service={service}",
        ).split()
        assert len(containers) == 1, f"{service}: {containers}"
        return containers[0]

    def tls(self) -> Tls:
        return Tls(ca=self.credentials / "cert.pem")

    def token(self) -> str:
        line = (self.credentials / "tokens.map").read_text()
        return line.replace(r"\Q", "").removeprefix('"~^').partition(r"\E")[0]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    sockets = {name: socket.socket() for name in names}
    try:
        for probe in sockets.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in sockets.items()}
    finally:
        for probe in sockets.values():
            probe.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("stack")
    ports = free_ports(PORTS)
    credentials = folder / "credentials"
    environment = {
        **os.environ,
        **{f"SHORTLIST_{name}": str(port) for name, port in ports.items()},
        "SHORTLIST_TLS_DIR": str(credentials),
        "SHORTLIST_CONFIG_POLL_SECONDS": "1",
        "SHORTLIST_POLL_SECONDS": "1",
    }
    stack = Stack(
        folder / "models",
        profiles=("scann", "monitoring", "tls"),
        project=PROJECT,
        environment=environment,
        # Grafana needs a registry: without one, its files are checked, but not its pictures.
        overrides=() if FROM_REGISTRY else (STANDINS / "without_grafana.yaml",),
    )
    try:
        stack.publish("sample", SMALL)
        stack.up(timeout=READY_SECONDS)
        yield Running(stack=stack, ports=ports, credentials=credentials)
    finally:
        stack.down(measurements=True)
        left = docker("ps", "--all", "--quiet", f"--filter=name={PROJECT}")
        networks = docker("network", "ls", "--quiet", f"--filter=name={PROJECT}")
        volumes = docker("volume", "ls", "--quiet", f"--filter=name={PROJECT}")
        assert (left, networks, volumes) == ("", "", "")
