"""`shortlist serve`: finds the servables, writes the configuration, runs the server."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shortlist.clients import GrpcClient
from shortlist.serving.errors import ModelServerError, RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.selection import Selection, find_servables, select
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from shortlist.serving.rollout.config import rolled_out_entry
from shortlist.serving.rollout.state import STABLE
from shortlist.serving.servers.kinds import program
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.readiness import all_available
from shortlist.serving.servers.runner import ModelServer

__all__ = ["ServeRequest", "replace_process", "request_from", "running", "serve_until_stopped"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServeRequest:
    """What to serve and how.

    Attributes:
        repository: Root of the model repository.
        kind: `embedded`, `docker` or `binary`.
        names: Only these models; None for all.
        grpc_port: Port of the gRPC API; 0 for any free one.
        rest_port: Port of the REST API; 0 for any free one.
        timeout: Seconds in which all servables must be AVAILABLE.
        log_file: Where the server's output goes; None passes it through to stderr.
        image: Container image; None for the stock one.
        flags: More of TensorFlow Serving's flags.
        json: Print what is served as JSON.
    """

    repository: Path
    kind: str = "embedded"
    names: tuple[str, ...] | None = None
    grpc_port: int = 0
    rest_port: int = 0
    timeout: float = 300.0
    log_file: Path | None = None
    image: str | None = None
    flags: tuple[str, ...] = ()
    json: bool = False


def request_from(args: argparse.Namespace) -> ServeRequest:
    """Request that the command line describes."""
    return ServeRequest(
        repository=Path(args.repository),
        kind=args.server,
        names=tuple(args.servable) if args.servable else None,
        grpc_port=args.port,
        rest_port=args.rest_port,
        timeout=args.timeout,
        log_file=Path(args.log_file) if args.log_file else None,
        image=args.image,
        flags=tuple(args.flags),
        json=args.json,
    )


@contextmanager
def running(request: ServeRequest) -> Iterator[tuple[ModelServer, Selection]]:
    """A server whose servables are all AVAILABLE; stopped when the context ends.

    Raises:
        RepositoryError: There is nothing that this kind of server can serve.
        ModelServerError: The server did not start or was not ready in time.
    """
    repository = ModelRepository(request.repository)
    selection = select(
        find_servables(repository, request.names), custom_ops=request.kind == "embedded"
    )
    for left_out in selection.left_out:
        log.warning("not serving %s: %s", left_out.name, left_out.reason)
    config_file = repository.root / CONFIG_FILE
    entries = [
        rolled_out_entry(config_file, repository, servable.name)
        or ModelEntry(name=servable.name, base_path=servable.base_path)
        for servable in selection.served
    ]
    served = [
        replace(servable, version=entry.labels.get(STABLE, max(entry.versions)))
        if entry.versions
        else servable
        for servable, entry in zip(selection.served, entries, strict=True)
    ]
    selection = replace(selection, served=tuple(served))
    try:
        write_config(config_file, entries)
    except OSError as exc:
        raise RepositoryError(f"cannot write {config_file}: {exc.strerror}") from exc
    options = ServerOptions(
        model_config_file=config_file.resolve(),
        repository=repository.root,
        grpc_port=claim_port(request.grpc_port, option="--port"),
        rest_port=claim_port(request.rest_port, option="--rest-port"),
        flags=request.flags,
        log_file=request.log_file,
        image=request.image or ServerOptions.image,
    )
    with ModelServer(request.kind, options) as server, GrpcClient(server.grpc_address) as client:
        server.wait_until(all_available(client, selection.served), timeout=request.timeout)
        yield server, selection


def serve_until_stopped(request: ServeRequest) -> int:
    """Serves until Ctrl-C or SIGTERM (exit status 0) or until the server ends by itself (1)."""
    try:
        with running(request) as (server, selection):
            _announce(request, server, selection)
            status = server.wait()
    except KeyboardInterrupt:
        log.info("stopped")
        return 0
    raise ModelServerError(f"the {request.kind} server ended by itself with status {status}")


def _announce(request: ServeRequest, server: ModelServer, selection: Selection) -> None:
    if request.json:
        served = {
            "server": request.kind,
            "grpc": server.grpc_address,
            "rest": server.rest_address,
            "servables": {servable.name: servable.version for servable in selection.served},
            "left_out": {left_out.name: left_out.reason for left_out in selection.left_out},
        }
        sys.stdout.write(json.dumps(served) + "\n")
    else:
        width = max(len(servable.name) for servable in selection.served)
        for servable in selection.served:
            sys.stdout.write(f"{servable.name:{width}}  version {servable.version}  AVAILABLE\n")
        sys.stdout.write(
            f"gRPC {server.grpc_address}, REST http://{server.rest_address}/v1/models/\n"
        )
        sys.stdout.write("Ctrl-C stops the server.\n")
    sys.stdout.flush()


def replace_process(kind: str, flags: Sequence[str]) -> int:
    """Becomes the server, with TensorFlow Serving's flags exactly as they were given.

    Raises:
        ModelServerError: The server's program is missing, or it runs in a container.
    """
    if kind == "docker":
        raise ModelServerError(
            "with --server docker give --repository instead of --model_config_file or "
            "--model_base_path: paths inside a container differ"
        )
    command = [*program(kind), *flags]
    sys.stdout.flush()
    os.execv(command[0], command)
