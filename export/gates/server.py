"""The gates that need a real server: it loads, answers, and is fast enough."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.clients import GrpcClient, RestClient, ServingError, contract
from shortlist.clients.types import State
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.golden import compare
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.repository.version import GateResult, Verdict, find_custom_ops
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer

__all__ = ["serve_and_ask"]

_FLAGS = ("--max_num_load_retries=0", "--file_system_poll_wait_seconds=1")
_LATENCY_TRIES = 3
_LATENCY_ROUNDS = 5
_LATENCY_QUERIES = 100  # per version and round, in turns
_WARM_UP_QUERIES = 20


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A server with every subject loaded.

    Attributes:
        grpc: Client of its gRPC API.
        rest: Client of its REST API.
        seconds: What loading everything took.
        memory: Resident bytes with everything loaded; None where that cannot be read.
    """

    grpc: GrpcClient
    rest: RestClient
    seconds: float
    memory: int | None


def serve_and_ask(
    subjects: Sequence[Subject], settings: GateSettings
) -> dict[str, list[GateResult]]:
    """Results of the gates `server` and `latency`, on one server for all servables.

    Where they do not all load together, each is tried alone, so that a good one is not
    blamed for a bad one.
    """
    fit = [one for one in subjects if _fits(one, settings)]
    found = {one.name: _left_out(settings) for one in subjects if one not in fit}
    if not fit:
        return found
    try:
        with _server(fit, settings) as running:
            return found | {one.name: _gates(one, running, settings) for one in fit}
    except ModelServerError as exc:
        if len(fit) == 1:
            return found | {fit[0].name: _not_served(str(exc), settings)}
    for one in fit:
        try:
            with _server([one], settings) as running:
                found[one.name] = _gates(one, running, settings)
        except ModelServerError as exc:
            found[one.name] = _not_served(str(exc), settings)
    return found


def _fits(subject: Subject, settings: GateSettings) -> bool:
    return settings.server == "embedded" or not find_custom_ops(subject.manifest.ops or ())


def _required(settings: GateSettings) -> str:
    return (
        f"AVAILABLE within {settings.load_timeout:g} s and "
        f"{settings.max_memory_bytes / 2**20:.0f} MiB, known answers over gRPC and REST"
    )


def _left_out(settings: GateSettings) -> list[GateResult]:
    why = f"it needs ops that a {settings.server} server does not have"
    return [
        GateResult(gate=gate, verdict=Verdict.SKIPPED, measured=why, required=_required(settings))
        for gate in ("server", "latency")
    ]


def _not_served(reason: str, settings: GateSettings) -> list[GateResult]:
    first = reason.splitlines()
    said = [line.strip() for line in first if "rror" in line or "not " in line]
    return [
        GateResult(
            gate="server",
            verdict=Verdict.FAILED,
            measured=(said[-1] if said else first[0])[:300],
            required=_required(settings),
        ),
        GateResult(
            gate="latency", verdict=Verdict.SKIPPED, measured="it is not served", required="-"
        ),
    ]


@contextmanager
def _server(subjects: Sequence[Subject], settings: GateSettings) -> Iterator[_Running]:
    """A server of the target's kind with the subjects and their live versions."""
    with tempfile.TemporaryDirectory(prefix="shortlist-gate-") as folder:
        root = Path(folder, "models")
        entries = [_trial_entry(one, root) for one in subjects]
        config_file = root / ".serving" / "models.config"
        write_config(config_file, entries)
        options = ServerOptions(
            model_config_file=config_file,
            repository=root,
            grpc_port=claim_port(0, option="--port"),
            rest_port=claim_port(0, option="--rest-port"),
            flags=_FLAGS,
            log_file=Path(folder, "server.log"),
        )
        started = time.monotonic()
        with (
            ModelServer(settings.server, options, temporary=True) as server,
            GrpcClient(server.grpc_address) as grpc,
            RestClient(server.rest_address) as rest,
        ):
            server.wait_until(lambda: _missing(grpc, entries), timeout=settings.load_timeout)
            seconds = time.monotonic() - started
            memory = _resident_bytes(server.pid) if settings.server != "docker" else None
            yield _Running(grpc=grpc, rest=rest, seconds=seconds, memory=memory)


def _trial_entry(subject: Subject, root: Path) -> ModelEntry:
    """Puts a staged version, and the live one, where a server can load them.

    Files are linked rather than copied where the file system allows that; a server in a
    container could not follow symbolic links out of its mount.
    """
    base_path = root / subject.name
    versions = {subject.version: subject.path}
    if subject.live is not None:
        versions[subject.live.version] = subject.live.path
    for version, path in versions.items():
        shutil.copytree(path, base_path / str(version), copy_function=_link_or_copy)
    return ModelEntry(name=subject.name, base_path=base_path, versions=tuple(sorted(versions)))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _missing(client: GrpcClient, entries: Sequence[ModelEntry]) -> str | None:
    for entry in entries:
        try:
            versions = client.status(model=entry.name, timeout=2.0).versions
        except ServingError as exc:
            return str(exc)
        states = {status.version: status for status in versions}
        for version in entry.versions:
            status = states.get(version)
            if status is None or status.state is not State.AVAILABLE:
                state = "unknown" if status is None else status.state.name
                if status is not None and status.state is State.END and status.error_message:
                    raise ModelServerError(
                        f"{entry.name} version {version} did not load: {status.error_message}"
                    )
                return f"{entry.name} version {version} is {state}"
    return None


def _resident_bytes(pid: int | None) -> int | None:
    """Resident size of a process, from Linux' /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _gates(subject: Subject, running: _Running, settings: GateSettings) -> list[GateResult]:
    return [_served(subject, running, settings), _latency(subject, running, settings)]


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
    return GateResult(
        gate="server",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        measured=measured,
        required=_required(settings),
    )


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


def _latency(subject: Subject, running: _Running, settings: GateSettings) -> GateResult:
    """p99 of single queries, the two versions asked in turns within one run."""
    ratio, slack = settings.max_latency_ratio, settings.latency_slack_ms
    required = f"p99 at most {ratio:g} times the live version's, or {slack:g} ms more"
    if subject.live is None or subject.probe is None:
        why = "there is no live version to compare with"
        return GateResult(gate="latency", verdict=Verdict.SKIPPED, measured=why, required=required)
    users = list(subject.probe.user_ids)

    def ask(version: int) -> Callable[[int], float]:
        def timed(number: int) -> float:
            inputs: Mapping[str, Any] = {contract.USER_ID: [users[number % len(users)]]}
            started = time.perf_counter()
            running.grpc.predict(inputs, model=subject.name, version=version)
            return (time.perf_counter() - started) * 1000

        return timed

    try:
        # Twice as slow is so each time; a neighbour on a shared machine is not.
        for _ in range(_LATENCY_TRIES):
            new, live = _p99_in_turns(ask(subject.version), ask(subject.live.version))
            passed = new <= max(live * ratio, live + slack)
            if passed:
                break
    except ServingError as exc:
        return GateResult(
            gate="latency", verdict=Verdict.FAILED, measured=str(exc), required=required
        )
    return GateResult(
        gate="latency",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        measured=f"p99 {new:.2f} ms, version {subject.live.version}: {live:.2f} ms",
        required=required,
    )


def _p99_in_turns(new: Callable[[int], float], live: Callable[[int], float]) -> tuple[float, float]:
    """The median round's p99 of each, so that one hiccup of the machine decides nothing."""
    for number in range(_WARM_UP_QUERIES):
        new(number)
        live(number)
    rounds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_LATENCY_ROUNDS):
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(_LATENCY_QUERIES):
            # Who goes first changes, so that neither always meets a warm cache.
            order = ((0, new), (1, live)) if number % 2 == 0 else ((1, live), (0, new))
            for which, one in order:
                times[which].append(one(number))
        for which in (0, 1):
            rounds[which].append(statistics.quantiles(times[which], n=100)[98])
    return statistics.median(rounds[0]), statistics.median(rounds[1])
