"""`shortlist bench client`: what our clients cost beside `tensorflow-serving-api`."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from shortlist.clients.cli.output import number, progress, table, write, write_json
from shortlist.clients.errors import ShortlistError

__all__ = ["run"]

_TIMEOUT: Final = 600.0  # seconds, for one measuring process

# Each runs in an interpreter of its own and prints seconds and peak megabytes.
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
    """Where calls go."""

    grpc: str
    rest: str
    model: str


def run(args: argparse.Namespace) -> int:
    """Measures and prints both comparisons."""
    if args.calls < 20:
        raise ShortlistError(f"--calls must be at least 20, got {args.calls}")
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


@contextmanager
def _server(args: argparse.Namespace) -> Iterator[Server]:
    """The server that the options name, or one that only repeats prepared answers."""
    if (args.grpc_address is None) != (args.rest_address is None):
        raise ShortlistError("give both --grpc-address and --rest-address, or neither")
    if args.grpc_address is not None:
        yield Server(args.grpc_address, args.rest_address, args.servable)
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "shortlist.clients.bench.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            raise ShortlistError("the benchmark's own server did not start")
        grpc_port, rest_port = line.split()
        yield Server(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}", "bench")
    finally:
        process.terminate()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _python(*arguments: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ShortlistError(f"a measurement took more than {_TIMEOUT:g} s") from exc
    if done.returncode != 0:
        raise ShortlistError(f"a measurement failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


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
    found = {}
    for name, code in programs.items():
        progress(f"measuring: {name}")
        best: tuple[float, float] | None = None
        for _ in range(1 if code == _STUB else 3):
            seconds, megabytes = _python("-c", _MEASURED.format(code=code)).split()
            if best is None or float(seconds) < best[0]:
                best = float(seconds), float(megabytes)
        if best is not None:
            found[name] = {"seconds": best[0], "megabytes": best[1]}
    return found


def _one_call(kind: str, address: str, server: Server) -> str:
    return _ONE_CALL.format(kind=kind, address=address, model=server.model)


def _calls(server: Server, calls: int, *, with_stub: bool) -> dict[str, dict[str, float]]:
    stub = ["stub"] if with_stub else []
    printed = _python("-m", "shortlist.clients.bench.calls", *server, str(calls), *stub)
    found: dict[str, dict[str, float]] = json.loads(printed.splitlines()[-1])
    return found


def _import_table(imports: dict[str, dict[str, float]]) -> str:
    rows = [["FRESH INTERPRETER", "SECONDS", "PEAK MB"]]
    rows += [
        [name, f"{one['seconds']:.3f}", f"{one['megabytes']:.0f}"] for name, one in imports.items()
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
