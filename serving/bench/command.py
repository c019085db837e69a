"""`shortlist bench server`: requests per second and latencies of model servers."""

import argparse
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shortlist.clients.bench.process import run_python
from shortlist.clients.cli.output import progress, table, write, write_json
from shortlist.clients.cli.parser import name_value_pairs
from shortlist.clients.cli.progress import tracked
from shortlist.clients.errors import ShortlistError
from shortlist.clients.wire.messages import LoggingConfig
from shortlist.serving.bench.load import Load, Measurement, measure
from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.files import temporary_folder
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import claim_port

__all__ = ["run"]

CANDIDATES: Final = (1682, 100_000)
START_SECONDS: Final = 120.0
GENERATE_SECONDS: Final = 600.0
EMBEDDED: Final = "embedded"
LOGGED: Final = "request log"
# Both servers' default, 4 threads a core, refuses some of eight calls at once.
THREADS: Final = 32

Row = tuple[int, str, int, int]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server."""

    name: str
    rest: str
    grpc: str


def _make_servables(repository: Path, candidates: Sequence[int]) -> None:
    sizes = [str(number) for number in candidates]
    progress(f"generating servables of {', '.join(sizes)} candidates")
    run_python(
        *("-m", "shortlist.serving.embedded.runtime.sample_servables", str(repository), *sizes),
        task="generating the sample servables",
        timeout=GENERATE_SECONDS,
    )


@contextmanager
def _started(name: str, command: str, config: Path) -> Iterator[Target]:
    """Start a server, wait until it answers, stop it at the end."""
    try:
        rest, grpc = claim_port(0, option="--address"), claim_port(0, option="--address")
    except ModelServerError as exc:
        raise ShortlistError(str(exc)) from exc
    flags = [
        f"--port={grpc}",
        f"--rest_api_port={rest}",
        f"--model_config_file={config}",
        f"--grpc_max_threads={THREADS}",
    ]
    arguments = shlex.split(command.replace("{flags}", shlex.join(flags)))
    log_file = config.with_name(f"{name}.log")
    with log_file.open("wb") as log:
        try:
            process = subprocess.Popen(
                arguments, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        except OSError as exc:
            raise ShortlistError(f"{name} cannot be started: {exc}") from exc
    target = Target(name=name, rest=f"127.0.0.1:{rest}", grpc=f"127.0.0.1:{grpc}")
    try:
        _wait_until_it_serves(target, process, log_file)
        yield target
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_serves(
    target: Target, process: "subprocess.Popen[bytes]", log_file: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    probe = Load(
        transport="rest",
        address=target.rest,
        model=f"brute_force_{CANDIDATES[0]}",
        batch=1,
        connections=1,
        seconds=0.1,
    )
    while True:
        try:
            measure(probe)
        except ShortlistError as exc:
            failure = str(exc)
        else:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log_file.read_text(errors="replace").splitlines()[-5:]
            raise ShortlistError(
                f"{target.name} does not serve ({failure}); its last lines: {' | '.join(tail)}"
            )
        time.sleep(0.3)


def _rows(*, quick: bool) -> list[Row]:
    """Candidates, transport, connections and batch of each measurement."""
    if quick:
        return [(CANDIDATES[0], transport, 1, 1) for transport in ("rest", "grpc")]
    return [
        (candidates, transport, connections, batch)
        for candidates in CANDIDATES
        for transport in ("rest", "grpc")
        for batch in (1, 32)
        for connections in (1, 8)
    ]


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ShortlistError: A server cannot be started or gives a wrong answer.
    """
    rows = _rows(quick=args.quick)
    seconds = 0.5 if args.quick else args.seconds
    candidates = sorted({row[0] for row in rows})
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder("bench"))
        repository = Path(args.repository) if args.repository else scratch / "repository"
        _make_servables(repository, candidates)
        config = scratch / "models.config"
        names = [f"brute_force_{number}" for number in candidates]
        write_config(config, repository, dict.fromkeys(names, ModelEntry()))
        results: dict[str, list[Measurement]] = {}
        commands = [] if args.no_embedded else [(EMBEDDED, _embedded_command(), config)]
        if args.request_log:
            logged = _logged_config(scratch, repository, names)
            commands.append((LOGGED, _embedded_command(), logged))
        commands += [
            (name, command, config) for name, command in name_value_pairs(args.server, "--server")
        ]
        # One at a time: servers that share the machine would slow one another down.
        for name, command, its_config in commands:
            with _started(name, command, its_config) as target:
                results[name] = _measure_all(target, rows, seconds)
        for name, value in name_value_pairs(args.address, "--address"):
            rest, comma, grpc = value.partition(",")
            if not comma:
                raise ShortlistError(f"--address takes NAME=REST,GRPC, got {name}={value}")
            target = Target(name=name, rest=rest, grpc=grpc)
            results[name] = _measure_all(target, rows, seconds)
    if not results:
        raise ShortlistError("nothing to measure; give --server or --address")
    if args.json:
        write_json(_documents(rows, results))
    else:
        write(_table(rows, results))
    return 0


def _logged_config(scratch: Path, repository: Path, names: Sequence[str]) -> Path:
    """Write and return a configuration that logs every request."""
    logging = LoggingConfig()
    logging.log_collector_config.filename_prefix = f"{scratch}/logs/"
    logging.sampling_config.sampling_rate = 1
    config = scratch / "logged.config"
    logs = dict.fromkeys(names, logging)
    write_config(config, repository, dict.fromkeys(names, ModelEntry()), logs)
    return config


def _embedded_command() -> str:
    return shlex.join(ServerKind.EMBEDDED.program()) + " {flags}"


def _measure_all(target: Target, rows: Sequence[Row], seconds: float) -> list[Measurement]:
    measurements = []
    for candidates, transport, connections, batch in tracked(rows, target.name):
        progress(
            f"{target.name}: {candidates} candidates, {transport}, "
            f"{connections} connection(s), batch {batch}"
        )
        load = Load(
            transport=transport,
            address=target.rest if transport == "rest" else target.grpc,
            model=f"brute_force_{candidates}",
            batch=batch,
            connections=connections,
            seconds=seconds,
        )
        try:
            measurements.append(measure(load))
        except ShortlistError as exc:
            raise ShortlistError(f"{target.name}: {exc}") from exc
    return measurements


def _documents(rows: Sequence[Row], results: dict[str, list[Measurement]]) -> list[dict[str, Any]]:
    keys = ("candidates", "transport", "connections", "batch")
    return [
        {**dict(zip(keys, row, strict=True)), "server": name, **asdict(measurements[index])}
        for index, row in enumerate(rows)
        for name, measurements in results.items()
    ]


def _table(rows: Sequence[Row], results: dict[str, list[Measurement]]) -> str:
    head = ["candidates", "API", "connections", "batch"]
    for name in results:
        head += [f"{name} req/s", "p50 ms", "p99 ms"]
    lines = [head]
    for index, (candidates, transport, connections, batch) in enumerate(rows):
        line = [f"{candidates:,}", transport, str(connections), str(batch)]
        for measurements in results.values():
            row = measurements[index]
            line += [f"{row.requests_per_second:,.0f}", f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}"]
        lines.append(line)
    return table(lines, text=(1,), markdown=True)
