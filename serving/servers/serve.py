"""Running a server for a model repository: which servables, their configuration, the process."""

import logging
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from shortlist.clients import GrpcClient
from shortlist.clients.wire.messages import LoggingConfig
from shortlist.serving.errors import LoadError, RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.selection import Selection, find_servables, select
from shortlist.serving.repository.server_config import (
    CONFIG_FILE,
    STABLE,
    ModelEntry,
    last_entry,
    request_logs,
    write_config,
)
from shortlist.serving.servers.available import check_available, check_flags
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer, all_available

__all__ = ["ServeRequest", "replace_process", "running"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServeRequest:
    """Servables and options for `running`.

    Attributes:
        repository: Root of the model repository.
        kind: Kind of server.
        names: Model names; `None` for all.
        config: Configuration file to write and to start from; `None` for that of the repository.
            Servers that hold different models of a repository need different files.
        grpc_port: Port of the gRPC API; 0 for any free one.
        rest_port: Port of the REST API; 0 for any free one.
        timeout: Startup timeout in seconds, until all servables are AVAILABLE.
        log_file: File for the server's output; `None` passes it through to stderr.
        image: Container image; `None` for the stock one.
        flags: Further flags of TensorFlow Serving.
        request_log: Folder for request logs; `None` continues those in the configuration.
        request_log_rate: Share of the requests to log, if there is a folder.
        no_request_log: End the logs in the configuration.
    """

    repository: Path
    kind: ServerKind = ServerKind.EMBEDDED
    names: tuple[str, ...] | None = None
    config: Path | None = None
    grpc_port: int = 0
    rest_port: int = 0
    timeout: float = 300.0
    log_file: Path | None = None
    image: str | None = None
    flags: tuple[str, ...] = ()
    request_log: Path | None = None
    request_log_rate: float = 1.0
    no_request_log: bool = False

    def __post_init__(self) -> None:
        if self.request_log is not None and self.no_request_log:
            raise ValueError("pass --request-log or --no-request-log, not both")
        if not 0 < self.request_log_rate <= 1:
            raise ValueError(
                f"--request-log-rate must be above 0 and at most 1, got {self.request_log_rate:g}"
            )
        if self.request_log is None and self.request_log_rate < 1:
            raise ValueError("--request-log-rate needs --request-log")
        if self.request_log is not None and self.kind is not ServerKind.EMBEDDED:
            raise ValueError(
                f"--request-log needs --server embedded: the {self.kind} server has no collector "
                "of requests; log in applications instead, with the clients' hook RequestLog"
            )


@contextmanager
def running(request: ServeRequest) -> Iterator[tuple[ModelServer, Selection]]:
    """Run a server whose servables are all AVAILABLE, until the context ends.

    Raises:
        RepositoryError: The repository holds nothing that this kind of server can serve.
        LoadError: The server did not load some of the servables.
        ModelServerError: The server cannot start here, did not start, or was not ready in time.
    """
    image = request.image or ServerOptions.image
    check_available(
        request.kind,
        grpc_port=request.grpc_port,
        rest_port=request.rest_port,
        flags=request.flags,
        image=image,
    )
    repository = ModelRepository(request.repository)
    selection = select(
        find_servables(repository, request.names), scann_problem=request.kind.scann_problem()
    )
    for left_out in selection.left_out:
        log.warning("not serving %s: %s", left_out.name, left_out.reason)
    config_file = request.config or repository.root / CONFIG_FILE
    inside = config_file.resolve().is_relative_to(repository.root.resolve())
    if request.kind is ServerKind.DOCKER and not inside:
        raise RepositoryError(
            f"{config_file} is not in {repository.root}, which is all that a container sees of the "
            "disk; choose a file below it with --config"
        )
    entries = {
        servable.name: last_entry(config_file, repository, servable.name) or ModelEntry()
        for servable in selection.served
    }
    served = [
        replace(servable, version=entry.labels.get(STABLE, max(entry.versions)))
        if (entry := entries[servable.name]).versions
        else servable
        for servable in selection.served
    ]
    selection = replace(selection, served=tuple(served))
    try:
        logs = _request_logs(request, config_file, list(entries))
        write_config(config_file, repository.root, entries, logs)
    except OSError as exc:
        raise RepositoryError(f"cannot write {config_file}: {exc.strerror}") from exc
    options = ServerOptions(
        model_config_file=config_file.resolve(),
        repository=repository.root,
        grpc_port=claim_port(request.grpc_port, option="--port"),
        rest_port=claim_port(request.rest_port, option="--rest-port"),
        # A version that does not load is reported at once, not after five minutes of retries.
        flags=("--max_num_load_retries=0", *request.flags),
        log_file=request.log_file,
        image=image,
    )
    with (
        ModelServer(request.kind, options, temporary=True) as server,
        GrpcClient(server.grpc_address) as client,
    ):
        versions = {servable.name: [servable.version] for servable in selection.served}
        try:
            server.wait_until(all_available(client, versions), timeout=request.timeout)
        except LoadError as exc:
            remedy = _remedy(repository, selection, exc.failures)
            raise LoadError(exc.message, exc.failures, remedy=remedy) from exc
        yield server, selection


def _request_logs(
    request: ServeRequest, config_file: Path, names: Sequence[str]
) -> dict[str, LoggingConfig]:
    """Return the request logs by model name: those asked for, or those of the last start.

    Raises:
        RepositoryError: They are asked for in what is not a folder.
    """
    if request.no_request_log:
        return {}
    if request.request_log is not None:
        folder = request.request_log.resolve()
        if folder.exists() and not folder.is_dir():
            raise RepositoryError(f"--request-log takes a folder, and {folder} is a file")
        logs = {name: LoggingConfig() for name in names}
        for name, config in logs.items():
            config.log_collector_config.filename_prefix = str(folder / name)
            config.sampling_config.sampling_rate = request.request_log_rate
        return logs
    logs = request_logs(config_file)
    if logs and request.kind is not ServerKind.EMBEDDED:
        log.warning(
            "requests to %s are no longer logged: the %s server has no collector",
            *(", ".join(sorted(logs)), request.kind),
        )
        return {}
    return logs


def _remedy(repository: ModelRepository, selection: Selection, failed: Collection[str]) -> str:
    """Return what to do about versions that did not load, given as `NAME version N`."""
    names = [version.rpartition(" version ")[0] for version in failed]
    good = [servable.name for servable in selection.served if servable.name not in names]
    remedy = f"publish {' and '.join(names)} again"
    if good:
        others = " ".join(f"--servable {shlex.quote(name)}" for name in good)
        root = shlex.quote(str(repository.root))
        remedy += f", or serve the others: shortlist serve --repository {root} {others}"
    return remedy


def replace_process(kind: ServerKind, flags: Sequence[str]) -> NoReturn:
    """Replace this process by the server, with exactly these flags of TensorFlow Serving.

    Raises:
        ModelServerError: The server's program is missing, it runs in a container, or it does
            not know a flag.
    """
    command = [*kind.program(), *flags]
    check_flags(kind, flags)
    sys.stdout.flush()
    os.execv(command[0], command)
