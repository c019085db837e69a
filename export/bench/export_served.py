"""Cost of serving one version, on an embedded server of its own."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shortlist.clients import GrpcClient, contract
from shortlist.export.bench.machine import resident_bytes
from shortlist.serving.repository.files import temporary_folder
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer, all_available

__all__ = ["Served", "serve_and_measure"]

_QUERIES: Final = 300
_FLAGS: Final = ("--max_num_load_retries=0", "--file_system_poll_wait_seconds=0")


@dataclass(frozen=True, kw_only=True)
class Served:
    """Cost of a server with one servable.

    Attributes:
        load_seconds: Time from its start to AVAILABLE, warm-up included.
        served_bytes: Its resident size after some hundred requests.
        first_ms: Time of the first request.
        p50_ms: Median time of a request for one user over gRPC.
        p99_ms: 99th percentile of that time.
    """

    load_seconds: float
    served_bytes: int
    first_ms: float
    p50_ms: float
    p99_ms: float


def serve_and_measure(name: str, path: Path, *, timeout: float) -> Served:
    """Serve a version from the embedded server and query it for one user after the other.

    Args:
        name: Model name.
        path: `<repository>/<name>/<version>`.
        timeout: Seconds for the server to load it.

    Raises:
        ModelServerError: The version does not load.
    """
    with temporary_folder("bench") as folder:
        config = folder / "models.config"
        version = int(path.name)
        write_config(config, path.parent.parent, {name: ModelEntry(versions=(version,))})
        options = ServerOptions(
            model_config_file=config,
            repository=path.parent.parent,
            grpc_port=claim_port(0, option="--port"),
            rest_port=claim_port(0, option="--rest-port"),
            flags=_FLAGS,
            log_file=folder / "server.log",
        )
        started = time.monotonic()
        with (
            ModelServer(ServerKind.EMBEDDED, options, temporary=True) as server,
            GrpcClient(server.grpc_address) as client,
        ):
            server.wait_until(all_available(client, {name: [version]}), timeout=timeout)
            load_seconds = time.monotonic() - started
            times = [_ask(client, name, str(user)) for user in range(_QUERIES)]
            assert server.pid is not None
            return Served(
                load_seconds=load_seconds,
                served_bytes=resident_bytes(server.pid),
                first_ms=times[0],
                p50_ms=statistics.median(times),
                p99_ms=statistics.quantiles(times, n=100)[98],
            )


def _ask(client: GrpcClient, name: str, user: str) -> float:
    """Time of one request in milliseconds."""
    start = time.perf_counter()
    client.predict({contract.USER_ID: [user]}, model=name, timeout=60.0)
    return (time.perf_counter() - start) * 1e3
