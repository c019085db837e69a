"""`shortlist bench client`: cost of the clients, compared with `tensorflow-serving-api`."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from shortlist.clients import contract
from shortlist.clients.bench.process import run_python
from shortlist.clients.cli.output import number, progress, table, write, write_json, write_table
from shortlist.clients.cli.progress import tracked
from shortlist.clients.errors import ShortlistError

__all__ = ["run"]

_TIMEOUT: Final = 600.0  # seconds, for one measuring process

# Runs in a separate interpreter and prints seconds and peak megabytes.
_MEASURED: Final = """
import sys, time
started = time.perf_counter()
{code}
seconds = time.perf_counter() - started
# Not getrusage: that counts the parent's memory before exec too.
with open("/proc/self/status") as file:
    print(seconds, next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")))
"""
_ONE_CALL: Final = """
from shortlist.clients import {kind}
client = {kind}("{address}", model="{model}")
client.retrieve(["42"])
"""
_STUB: Final = "from tensorflow_serving.apis import prediction_service_pb2_grpc"


class Server(NamedTuple):
    """Addresses and model to call."""

    grpc: str
    rest: str
    model: str


def run(args: argparse.Namespace) -> int:
    """Measure and print imports and calls in turn, or with `--threads` calls of many threads."""
    if args.calls < 20:
        raise ShortlistError(f"--calls must be at least 20, got {args.calls}")
    if args.threads is not None:
        return _run_threads(args)
    if args.batch is not None:
        raise ShortlistError(f"--batch {args.batch} has no effect without --threads")
    with_stub = not args.without_stub
    if with_stub and find_spec("tensorflow_serving") is None:
        progress("tensorflow-serving-api is not installed: measuring without it")
        with_stub = False
    with _server(args) as server:
        imports = _imports(server, with_stub=with_stub)
        progress("timing calls in turn" + (" (imports TensorFlow first)" if with_stub else ""))
        calls = _calls(server, args.calls, with_stub=with_stub)
    if args.json:
        write_json({"imports": imports, "calls": calls})
    else:
        write(f"{_import_table(imports)}\n\n{_call_table(calls)}")
    return 0


def _run_threads(args: argparse.Namespace) -> int:
    """Measure and print the calls of many threads."""
    from shortlist.clients.bench.threads import measure_threads
    from shortlist.clients.grpc import GrpcClient
    from shortlist.clients.rest import RestClient

    if args.without_stub:
        raise ShortlistError("--without-stub has no effect with --threads")
    batch = 1 if args.batch is None else args.batch
    for option, value in (("threads", args.threads), ("batch", batch)):
        if value < 1:
            raise ShortlistError(f"--{option} must be at least 1, got {value}")
    results = {}
    with _server(args) as server:
        for name, kind, address in (
            ("grpc", GrpcClient, server.grpc),
            ("rest", RestClient, server.rest),
        ):
            progress(f"{args.threads} threads make {args.calls} calls over {name}")
            results[name] = measure_threads(
                kind,
                address,
                server.model,
                threads=args.threads,
                calls=args.calls,
                batch=batch,
            )
    if args.json:
        write_json(results)
        return 0
    rows = [["TRANSPORT", "CALLS", "FAILED", "TRIES", "CALLS/S", "P50", "P99", "ERRORS"]]
    for name, result in results.items():
        failed = sum(result["failed"].values())
        rows.append(
            [
                name,
                str(result["calls"]),
                f"{failed} ({failed / result['calls']:.2%})",
                f"{result['tries_per_call']:.2f}",
                f"{result['calls_per_second']:.0f}",
                f"{result['p50_ms']:.1f} ms",
                f"{result['p99_ms']:.1f} ms",
                ", ".join(f"{count} {error}" for error, count in result["failed"].items()) or "-",
            ]
        )
    write_table(rows, text=(0, 7))
    return 0


@contextmanager
def _server(args: argparse.Namespace) -> Iterator[Server]:
    """Yield the server that the options name, or one that repeats prepared answers."""
    if (args.grpc_address is None) != (args.rest_address is None):
        raise ShortlistError("give both --grpc-address and --rest-address, or neither")
    if args.grpc_address is not None:
        server = Server(
            args.grpc_address, args.rest_address, args.servable or contract.DEFAULT_SERVABLE
        )
        _check(server)
        yield server
        return
    if args.servable is not None:
        raise ShortlistError(
            f"--servable {args.servable} needs its server: --grpc-address and --rest-address"
        )
    process = subprocess.Popen(
        [sys.executable, "-m", "shortlist.clients.bench.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            raise ShortlistError("the server of the benchmark did not start")
        grpc_port, rest_port = line.split()
        yield Server(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}", "bench")
    finally:
        process.terminate()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _check(server: Server) -> None:
    """Ask both ports once, so that a wrong one is said before anything is measured."""
    from shortlist.clients.grpc import GrpcClient
    from shortlist.clients.rest import RestClient

    with (
        GrpcClient(server.grpc, model=server.model) as grpc,
        RestClient(server.rest, model=server.model) as rest,
    ):
        for client in (grpc, rest):
            client.retrieve(["42"])


def _imports(server: Server, *, with_stub: bool) -> dict[str, dict[str, float]]:
    """Seconds and peak megabytes of fresh interpreters."""
    programs = {
        "nothing": "pass",
        "import shortlist.clients": "import shortlist.clients",
        "import grpc": "import grpc",
        "GrpcClient and one call": _one_call("GrpcClient", server.grpc, server),
        "RestClient and one call": _one_call("RestClient", server.rest, server),
    }
    if with_stub:
        programs["import tensorflow-serving-api's stub"] = _STUB
    fastest = {}
    for name, code in tracked(programs.items(), "imports"):
        progress(f"measuring: {name}")
        program = _MEASURED.format(code=code)
        outputs = [
            run_python("-c", program, task=name, timeout=_TIMEOUT).split()
            for _ in range(1 if code == _STUB else 3)
        ]
        seconds, megabytes = min((float(time), float(size)) for time, size in outputs)
        fastest[name] = {"seconds": seconds, "megabytes": megabytes}
    return fastest


def _one_call(kind: str, address: str, server: Server) -> str:
    return _ONE_CALL.format(kind=kind, address=address, model=server.model)


def _calls(server: Server, calls: int, *, with_stub: bool) -> dict[str, dict[str, float]]:
    stub = ["stub"] if with_stub else []
    arguments = ("-m", "shortlist.clients.bench.calls", *server, str(calls), *stub)
    output = run_python(*arguments, task="calls in turn", timeout=_TIMEOUT)
    medians: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    return medians


def _import_table(imports: dict[str, dict[str, float]]) -> str:
    rows = [["FRESH INTERPRETER", "SECONDS", "PEAK MB"]]
    rows += [
        [name, f"{cost['seconds']:.3f}", f"{cost['megabytes']:.0f}"]
        for name, cost in imports.items()
    ]
    return table(rows)


def _call_table(calls: dict[str, dict[str, Any]]) -> str:
    rows = [["MEDIAN CALL", "OURS", "BARE", "RATIO"]]
    for case, seconds in calls.items():
        ours = next(value for name, value in seconds.items() if name.endswith("Client"))
        bare = next((value for name, value in seconds.items() if not name.endswith("Client")), None)
        rows.append(
            [
                case,
                f"{ours * 1e3:.3f} ms",
                "-" if bare is None else f"{bare * 1e3:.3f} ms",
                number(None if bare is None else ours / bare, ".2f"),
            ]
        )
    return table(rows)
