"""The gates that need a real server: the version loads, answers, and is fast enough."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shortlist.clients import GrpcClient, RestClient, ServingError, contract
from shortlist.export.gates.latency import check_latency
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.errors import LoadError, ModelServerError
from shortlist.serving.repository.files import temporary_folder
from shortlist.serving.repository.golden import GoldenQuery, compare
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.repository.version import GateResult, find_custom_ops
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer, all_available

__all__ = ["run_server_gates"]

_FLAGS = ("--max_num_load_retries=0", "--file_system_poll_wait_seconds=1")


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A server with every subject loaded.

    Attributes:
        grpc: Client of its gRPC API.
        rest: Client of its REST API.
        seconds: Time to load everything.
        memory: Resident bytes with everything loaded, or None if unknown.
    """

    grpc: GrpcClient
    rest: RestClient
    seconds: float
    memory: int | None


def run_server_gates(
    subjects: Sequence[Subject], settings: GateSettings
) -> dict[str, list[GateResult]]:
    """Run the gates `server` and `latency`, with one server for all servables.

    If the servables do not load together, each gets its own server, so that a good one does
    not fail because of a bad one.
    """
    results: dict[str, list[GateResult]] = {}
    servable = []
    for subject in subjects:
        problem = settings.server.scann_problem()
        op = next(iter(find_custom_ops(subject.manifest.ops or ())), None)
        if problem is None or op is None:
            servable.append(subject)
        else:
            reason = f"it needs the op {op!r}, and {problem}"
            results[subject.name] = [
                Gate(name, _required(settings)).skipped(reason) for name in ("server", "latency")
            ]
    if not servable:
        return results
    try:
        with _server(servable, settings) as running:
            return results | {s.name: _run_gates(s, running, settings) for s in servable}
    except ModelServerError as exc:
        if len(servable) == 1:
            return results | {servable[0].name: _not_served(exc, settings)}
    for subject in servable:
        try:
            with _server([subject], settings) as running:
                results[subject.name] = _run_gates(subject, running, settings)
        except ModelServerError as exc:
            results[subject.name] = _not_served(exc, settings)
    return results


def _required(settings: GateSettings) -> str:
    return (
        f"AVAILABLE within {settings.load_timeout:g} s and "
        f"{settings.max_memory_bytes / 2**20:.0f} MiB, known answers over gRPC and REST"
    )


def _not_served(exc: ModelServerError, settings: GateSettings) -> list[GateResult]:
    lines = str(exc).splitlines()
    errors = [line.strip() for line in lines if "rror" in line or "not " in line]
    reason = lines[0] if isinstance(exc, LoadError) or not errors else errors[-1]
    return [
        Gate("server", _required(settings)).failed(reason[:300]),
        Gate("latency").skipped("not served"),
    ]


@contextmanager
def _server(subjects: Sequence[Subject], settings: GateSettings) -> Iterator[_Running]:
    """Start a server of the target's kind with the subjects and their live versions."""
    with temporary_folder("gate") as folder:
        root = folder / "models"
        entries = {subject.name: _trial_entry(subject, root) for subject in subjects}
        config_file = root / ".serving" / "models.config"
        write_config(config_file, root, entries)
        options = ServerOptions(
            model_config_file=config_file,
            repository=root,
            grpc_port=claim_port(0, option="--port"),
            rest_port=claim_port(0, option="--rest-port"),
            flags=_flags(settings),
            log_file=folder / "server.log",
        )
        started = time.monotonic()
        with (
            ModelServer(settings.server, options, temporary=True) as server,
            GrpcClient(server.grpc_address) as grpc,
            RestClient(server.rest_address) as rest,
        ):
            versions = {name: entry.versions or () for name, entry in entries.items()}
            loaded = all_available(grpc, versions, give_up=True)
            server.wait_until(loaded, timeout=settings.load_timeout)
            seconds = time.monotonic() - started
            memory = (
                _resident_bytes(server.pid) if settings.server is not ServerKind.DOCKER else None
            )
            yield _Running(grpc=grpc, rest=rest, seconds=seconds, memory=memory)


def _flags(settings: GateSettings) -> tuple[str, ...]:
    allowed = settings.server is ServerKind.EMBEDDED and settings.allow_file_ops
    return (*_FLAGS, "--allow_file_ops=true") if allowed else _FLAGS


def _trial_entry(subject: Subject, root: Path) -> ModelEntry:
    """Provide a staged version and the live one to a server.

    Files are hard links if the file system allows it, else copies; a server in a container
    could not follow symbolic links out of its mount.
    """
    base_path = root / subject.name
    versions = {subject.version: subject.path}
    if subject.live is not None:
        versions[subject.live.version] = subject.live.path
    for version, path in versions.items():
        shutil.copytree(path, base_path / str(version), copy_function=_link_or_copy)
    return ModelEntry(versions=tuple(sorted(versions)))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _resident_bytes(pid: int | None) -> int | None:
    """Return the resident size of a process from Linux's /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _run_gates(subject: Subject, running: _Running, settings: GateSettings) -> list[GateResult]:
    def ask(version: int, query: GoldenQuery) -> object:
        return running.grpc.predict(
            query.inputs, signature=query.signature, model=subject.name, version=version
        )

    return [_served(subject, running, settings), check_latency(subject, ask, settings)]


def _served(subject: Subject, running: _Running, settings: GateSettings) -> GateResult:
    measured = f"AVAILABLE after {running.seconds:.1f} s"
    passed = True
    if running.memory is not None:
        measured += f", {running.memory / 2**20:.0f} MiB"
        passed = running.memory <= settings.max_memory_bytes
    if (subject.path / contract.WARMUP_FILE).is_file():
        measured += ", warmed up"
    for transport, client in (("gRPC", running.grpc), ("REST", running.rest)):
        wrong = _wrong_answer(subject, client)
        if wrong is not None:
            measured, passed = f"{measured}; over {transport}: {wrong}", False
            break
    else:
        measured += f", {len(subject.golden)} known answers over both transports"
    return Gate("server", _required(settings)).result(passed, measured)


def _wrong_answer(subject: Subject, client: GrpcClient | RestClient) -> str | None:
    for query in subject.golden:
        try:
            answer = client.predict(
                query.inputs,
                signature=query.signature,
                model=subject.name,
                version=subject.version,
                timeout=60.0,
            )
        except (ServingError, ValueError) as exc:
            return str(exc)
        wrong = compare(query, answer.outputs)
        if wrong is not None:
            return wrong
    return None
