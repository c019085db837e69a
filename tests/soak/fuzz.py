"""Send mutated requests and frames to the embedded server and check that they do no harm.

Usage: `python -m tests.soak.fuzz [--count 100000 | --minutes 60] [--seed N]`. Half of the requests
are REST, half gRPC; for every ten of them, one stream of mutated bytes. No answer may be an
internal error. Afterwards the server must be alive, answer a good request, and have no more
threads and no more memory than before.
"""

import argparse
import collections
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from shortlist.clients.wire import methods
from shortlist.serving.embedded.runtime.sample_servables import sample_name
from tests.soak.fuzz_frames import throw_frames
from tests.soak.fuzz_requests import (
    CANDIDATES,
    SKIPPED,
    grpc_seeds,
    mutated,
    mutated_predict,
    rest_seeds,
)
from tests.support.paths import ROOT
from tests.support.recorded import MODELS

WORKERS = 4
REPLY_SECONDS = 30.0
SAMPLE_SERVABLES = "shortlist.serving.embedded.runtime.sample_servables"


@dataclass
class Tally:
    """Counts of answers by kind, and the wrong answers."""

    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, wrong: str = "") -> None:
        with self.lock:
            self.kinds[kind] += 1
            if wrong:
                self.wrong.append(wrong)


# --- throwing -----------------------------------------------------------------------------


class RestThrower:
    """A connection that is opened again after the server closes it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock: socket.socket | None = None

    def __call__(self, path: str, body: bytes) -> tuple[str, str]:
        """Return the kind of the answer, and what is wrong with it, if anything."""
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self.port), REPLY_SECONDS)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.sock.recv(1 << 20)
            if not chunk:
                self.close()
                return "closed", f"connection closed after {path} {body!r}"
            data += chunk
        head_bytes, _, answer = data.partition(b"\r\n\r\n")
        lower = head_bytes.lower()
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(answer) < length:
            answer += self.sock.recv(1 << 20)
        status = lower.split()[1].decode()
        if b"connection: close" in lower:
            self.close()
        wrong = f"{status} for {path} {body!r}" if status == "500" else ""
        return f"HTTP {status}", wrong

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class GrpcThrower:
    """A channel that sends bytes instead of messages."""

    def __init__(self, port: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.calls: dict[str, Any] = {}

    def __call__(self, path: str, data: bytes) -> tuple[str, str]:
        """Return the kind of the answer, and what is wrong with it, if anything."""
        call = self.calls.setdefault(path, self.channel.unary_unary(path))
        try:
            call(data, timeout=REPLY_SECONDS)
        except grpc.RpcError as exc:
            failure: Any = exc
            code = failure.code().name
            bad = code in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE")
            bad = bad or (code == "INTERNAL" and failure.details() != "")
            return f"gRPC {code}", f"{code} {failure.details()} for {path} {data!r}" if bad else ""
        return "gRPC OK", ""

    def close(self) -> None:
        self.channel.close()


Thrower = Callable[[str, bytes], tuple[str, str]]


def throw(
    thrower: Thrower,
    seeds: Sequence[tuple[str, bytes]],
    count: int,
    rng: random.Random,
    tally: Tally,
) -> None:
    """Send `count` mutations of the seeds."""
    bodies = [body for _, body in seeds]
    for _ in range(count):
        path, body = rng.choice(seeds)
        if path == methods.PREDICT.path and rng.randrange(2):
            # Some recorded requests do not parse.
            with suppress(DecodeError):
                body = mutated_predict(body, rng)
        else:
            body = mutated(body, rng, bodies)
        if any(skipped.encode() in body for skipped in SKIPPED):
            continue
        try:
            tally.add(*thrower(path, body))
        except OSError as exc:
            tally.add("lost", f"{exc!r} for {path} {body!r}")
            getattr(thrower, "close")()  # noqa: B009


# --- the server ---------------------------------------------------------------------------


def model_config(folder: Path) -> str:
    models = {sample_name(CANDIDATES): folder / sample_name(CANDIDATES)}
    if MODELS.is_dir():
        models |= {name: MODELS / name for name in ("half_plus_two", "dtypes")}
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
        for name, path in models.items()
    )
    return f"model_config_list {{\n{entries}}}\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Start an embedded server; yield its pid, REST port and gRPC port."""
    subprocess.run(
        [sys.executable, "-m", SAMPLE_SERVABLES, folder, str(CANDIDATES)],
        check=True, cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    config = folder / "models.config"
    config.write_text(model_config(folder))
    rest, rpc = free_port(), free_port()
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "shortlist.serving.embedded"),
                *(f"--model_config_file={config}", f"--port={rpc}"),
                *(f"--rest_api_port={rest}", "--grpc_max_threads=32"),
                "--drain_seconds=1",
            ],
            cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", rest), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no server:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.1)
        yield process.pid, rest, rpc
        if process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{log.read_text()[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def memory_and_threads(pid: int) -> tuple[float, int]:
    """Return resident megabytes and number of threads of a process."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])


def round_of(count: int, rest: int, rpc: int, seed: int, tally: Tally) -> None:
    """Send `count` requests from several threads."""
    throwers: list[Any] = [RestThrower(rest) for _ in range(WORKERS)]
    throwers += [GrpcThrower(rpc) for _ in range(WORKERS)]
    seeds = [rest_seeds()] * WORKERS + [grpc_seeds()] * WORKERS
    threads = [
        threading.Thread(
            target=throw,
            args=(thrower, own, -(-count // len(throwers)), random.Random(seed + index), tally),
        )
        for index, (thrower, own) in enumerate(zip(throwers, seeds, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thrower in throwers:
        thrower.close()


def fuzz(count: int, seed: int, *, seconds: float = 0.0) -> list[str]:
    """Run rounds of `count` requests for `seconds`, at least one; return the problems."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name, running_server(Path(name)) as (pid, rest, rpc):
        # The first part fills thread pools and caches.
        warm_up = max(count // 5, 200)
        round_of(warm_up, rest, rpc, seed, tally)
        before = memory_and_threads(pid)
        started = time.monotonic()
        rounds = 0
        while not rounds or time.monotonic() - started < seconds:
            round_of(count, rest, rpc, seed + 1000 * (rounds + 1), tally)
            throw_frames(rest, rpc, max(count // 20, 1), seed + rounds)
            rounds += 1
        spent = time.monotonic() - started
        time.sleep(1.5)
        after = memory_and_threads(pid)
        good = RestThrower(rest)
        path, body = rest_seeds()[0]
        kind, _ = good(path, body)
        good.close()
    problems = tally.wrong[:20]
    if kind != "HTTP 200":
        problems.append(f"a good request got {kind}")
    if after[1] > before[1] + 2:
        problems.append(f"{before[1]} threads before, {after[1]} after")
    if after[0] > before[0] * 1.15 + 40:
        problems.append(f"{before[0]:.0f} MB before, {after[0]:.0f} MB after")
    sys.stdout.write(
        f"{sum(tally.kinds.values())} requests, {spent:.0f} s; {dict(tally.kinds.most_common())}; "
        f"memory {before[0]:.0f} -> {after[0]:.0f} MB, threads {before[1]} -> {after[1]}\n"
    )
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=0.0, help="repeat for this long")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = parser.parse_args()
    sys.stdout.write(f"seed {args.seed}\n")
    problems = fuzz(args.count, args.seed, seconds=60 * args.minutes)
    for problem in problems:
        sys.stdout.write(f"WRONG: {problem[:600]}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
