"""Publish, roll back, reload and remove versions under load.

`python -m tests.soak.soak --minutes 10` (`make soak`) prints a line per cycle and a summary. The
exit status is 1 if a request failed or memory grew. `make test-soak` runs a minute of it.
`--attacks` runs the attacks of `tests/integration/attacks` on the same server all the while, and
`--every` spaces the rollouts: `python -m tests.soak.soak --minutes 120 --every 300 --attacks`.
Memory is measured when only the load goes on: between two rounds of attacks and two rollouts.
"""

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median

import grpc
from google.protobuf import text_format

from shortlist.clients.wire import messages, methods
from shortlist.serving.repository.server_config import ModelEntry, render_config, write_config
from shortlist.serving.servers.options import claim_port
from tests.soak.load import Load, Outcome, Target, capacity
from tests.support.attacks import LARGE, SMALL, write_models
from tests.support.paths import ROOT

__all__ = ["Report", "main", "run_soak"]

MODELS = ("brute_force", "scann")
SOURCES = 3  # versions that are written once and published repeatedly under new numbers
WORKERS = 4
SHARE_OF_CAPACITY = 0.8
# The allocator keeps freed memory in its arenas, more or less by chance.
MEMORY_SLACK_MIB = 48
QUIET_SECONDS = 3.0  # after attacks, until the server has closed their connections
LOAD_SECONDS = 300.0  # for a version, beside attacks that take the processor


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of the soak.

    Attributes:
        outcome: Latencies and failures of all requests.
        capacity: Maximum requests per second.
        rate: Requests per second during the soak.
        cycles: Number of versions published, rolled back and removed, per model.
        rss_mib: Resident memory of the server with one version loaded, after each round of
            attacks, or each cycle if there are none.
        seconds: Length.
    """

    outcome: Outcome
    capacity: float
    rate: float
    cycles: int
    rss_mib: Sequence[float]
    seconds: float

    @property
    def slope_mib_per_hour(self) -> float:
        """Slope of the memory in the second half."""
        half = self.rss_mib[len(self.rss_mib) // 2 :]
        if len(half) < 2:
            return 0.0
        slope = linear_regression(range(len(half)), half).slope
        return slope * len(self.rss_mib) * 3600 / self.seconds

    @property
    def growth_mib(self) -> float:
        """Growth from the median of the second quarter to that of the last.

        In the first, code is loaded, and pools grow to what one request or another needs.
        """
        quarter = max(1, len(self.rss_mib) // 4)
        return median(self.rss_mib[-quarter:]) - median(self.rss_mib[quarter : 2 * quarter])

    def problems(self) -> list[str]:
        """Return the problems as sentences."""
        problems = []
        if self.outcome.failures:
            shown = "\n  ".join(self.outcome.failures[:10])
            problems.append(f"{len(self.outcome.failures)} requests failed, such as\n  {shown}")
        if len(self.rss_mib) < 4:
            problems.append(f"memory was measured {len(self.rss_mib)} times; cannot be judged")
        elif self.growth_mib > MEMORY_SLACK_MIB:
            measured = ", ".join(f"{rss:.0f}" for rss in self.rss_mib)
            problems.append(f"memory grew by {self.growth_mib:.0f} MiB: {measured}")
        return problems


class _Repository:
    """Folders of the models, and their configuration."""

    def __init__(self, root: Path, sources: Path) -> None:
        self.root = root
        self._sources = sources

    def publish(self, version: int) -> None:
        for model in MODELS:
            staging = self.root / f".staging-{model}"
            shutil.copytree(self._sources / model / str(version % SOURCES + 1), staging)
            (self.root / model).mkdir(parents=True, exist_ok=True)
            staging.rename(self.root / model / str(version))

    def remove(self, version: int) -> None:
        for model in MODELS:
            shutil.rmtree(self.root / model / str(version))

    def entries(self, versions: Sequence[int], stable: int) -> dict[str, ModelEntry]:
        entry = ModelEntry(versions=tuple(versions), labels={"stable": stable})
        attacked = [name for name in (SMALL, LARGE) if (self.root / name).is_dir()]
        constant = ModelEntry(versions=(1,), labels={"stable": 1})
        return dict.fromkeys(MODELS, entry) | dict.fromkeys(attacked, constant)


Call = Callable[..., bytes]


class _Director:
    """Move the server from version to version."""

    def __init__(self, repository: _Repository, channel: grpc.Channel) -> None:
        self._repository = repository
        self._reload: Call = channel.unary_unary(methods.HANDLE_RELOAD_CONFIG_REQUEST.path)
        self._status: Call = channel.unary_unary(methods.GET_MODEL_STATUS.path)

    def configure(self, versions: Sequence[int], stable: int) -> None:
        request = messages.ReloadConfigRequest()
        text_format.Parse(
            render_config(self._repository.root, self._repository.entries(versions, stable)),
            request.config,
        )
        self._reload(request.SerializeToString(), timeout=60)

    def wait(self, version: int, state: messages.ModelVersionStatus.State) -> None:
        def reached(model: str) -> bool:
            request = messages.GetModelStatusRequest()
            request.model_spec.name = model
            answer = messages.GetModelStatusResponse.FromString(
                self._status(request.SerializeToString(), timeout=10)
            )
            states = {entry.version: entry.state for entry in answer.model_version_status}
            return states.get(version) == state

        deadline = time.monotonic() + LOAD_SECONDS
        while not all(map(reached, MODELS)):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"version {version} did not get to state {state} in {LOAD_SECONDS:.0f} s"
                )
            time.sleep(0.1)

    def cycle(self, old: int) -> int:
        """Roll out with a rollback in between, and return the new version."""
        new = old + 1
        self._repository.publish(new)
        self.configure([old, new], old)
        self.wait(new, messages.ModelVersionStatus.AVAILABLE)
        self.configure([old, new], new)
        time.sleep(0.3)
        self.configure([old, new], old)  # the rollback
        time.sleep(0.3)
        self.configure([old, new], new)
        self.configure([new], new)
        self.wait(old, messages.ModelVersionStatus.END)
        self._repository.remove(old)
        return new


def make_sources(folder: Path) -> None:
    """Write the SavedModels in a separate process."""
    subprocess.run(
        [sys.executable, "-m", "tests.soak.servables", str(folder), str(SOURCES)],
        check=True,
        capture_output=True,
        timeout=300,
    )


def run_soak(
    work: Path,
    *,
    seconds: float,
    say: Callable[[str], None],
    every: float = 0.0,
    attacks: bool = False,
    share: float = SHARE_OF_CAPACITY,
) -> Report:
    """Measure the capacity, then run the cycles for `seconds` under load.

    Args:
        work: Folder of everything that is written.
        seconds: Length.
        say: Called with a line per cycle.
        every: Seconds from one rollout to the next, at least.
        attacks: Attack the server all the while.
        share: Load, as a share of the capacity.
    """
    sources, root = work / "sources", work / "repository"
    say("writing the servables")
    make_sources(sources)
    if attacks:
        write_models(root)
    repository = _Repository(root, sources)
    repository.publish(1)
    config_file = root / "models.config"
    write_config(config_file, repository.root, repository.entries([1], 1))
    target = Target(
        grpc_port=claim_port(0, option="--port"),
        rest_port=claim_port(0, option="--rest_api_port"),
        models=MODELS,
    )
    with _server(target, config_file, work / "server.log") as server:
        highest = capacity(lambda: Load(target, workers=WORKERS), min(10.0, seconds / 6))
        rate = share * highest
        say(f"{highest:.0f} requests/s at most; {rate:.0f}/s for {seconds:.0f} s")
        version, rss = 1, list[float]()
        still = threading.Lock()  # held by a rollout, and while memory is measured

        def measure() -> None:
            with still:
                time.sleep(QUIET_SECONDS)
                rss.append(_rss_mib(server.pid))
            say(f"{rss[-1]:.0f} MiB")

        with grpc.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
            director = _Director(repository, channel)
            with (
                _attacks(target, work, measure) if attacks else nullcontext(),
                Load(target, workers=WORKERS, rate=rate) as load,
            ):
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    next_cycle = time.monotonic() + every
                    with still:
                        version = director.cycle(version)
                    say(
                        f"version {version}: {load.outcome.requests} requests, "
                        f"{len(load.outcome.failures)} failed"
                    )
                    # Long enough for `measure` to get the lock.
                    time.sleep(max(0.1, next_cycle - time.monotonic()))
                    if not attacks:
                        rss.append(_rss_mib(server.pid))
    return Report(
        outcome=load.outcome,
        capacity=highest,
        rate=rate,
        cycles=version - 1,
        rss_mib=rss,
        seconds=seconds,
    )


@contextmanager
def _attacks(target: Target, work: Path, after: Callable[[], None]) -> Iterator[None]:
    """Attack the server round by round, in processes of their own; the log is `attacks.log`.

    Args:
        target: Ports of the server.
        work: Folder of the log.
        after: Called after each round, while no attack goes on.
    """
    ports = f"{target.grpc_port}:{target.rest_port}"
    attacks = ["tests/integration/attacks", "--attack", ports]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *attacks]
    ended = threading.Event()

    def attack() -> None:
        while not ended.is_set():
            with (work / "attacks.log").open("ab") as log:
                done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False)
            if done.returncode not in (0, 1):  # 1: an attack succeeded; others: none ran
                return
            after()

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _judge_attacks(log: Path, say: Callable[[str], None]) -> list[str]:
    """Say how many rounds passed, and return what did not, as sentences."""
    text = log.read_text()
    rounds = re.findall(r"^(\d+ .+ in [\d.]+s).*$", text, re.M)
    others = [each for each in rounds if not re.match(r"\d+ passed in ", each)]
    say(f"{len(rounds)} rounds of attacks, {len(rounds) - len(others)} passed")
    if not rounds:
        return [f"no attack ended:\n{text[-2000:]}"]
    if not others:
        return []
    failures = Counter(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M))
    named = [f"\n  {name}: {count}" for name, count in failures.most_common()]
    return [f"{len(others)} of {len(rounds)} rounds of attacks failed: {others[0]}{''.join(named)}"]


@contextmanager
def _server(target: Target, config_file: Path, log_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server and wait until it accepts connections."""
    command = [
        *(sys.executable, "-m", "shortlist.serving.embedded", f"--model_config_file={config_file}"),
        *(f"--port={target.grpc_port}", f"--rest_api_port={target.rest_port}"),
        *("--grpc_max_threads=64", "--allow_version_labels_for_unavailable_models=true"),
    ]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + LOAD_SECONDS
            while not all(map(_accepts, (target.grpc_port, target.rest_port))):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the server does not serve:\n{log_file.read_text()}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmRSS")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.soak",
        description=__doc__,
        epilog="Example: python -m tests.soak.soak --minutes 1",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length (default: %(default)g)")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two rollouts")
    parser.add_argument("--attacks", action="store_true", help="attack the server all the while")
    parser.add_argument(
        "--share",
        type=float,
        default=SHARE_OF_CAPACITY,
        help="load as a share of the capacity (default: %(default)g)",
    )
    args = parser.parse_args(argv)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    with tempfile.TemporaryDirectory(prefix="shortlist-soak-") as work:
        report = run_soak(
            Path(work),
            seconds=60 * args.minutes,
            say=say,
            every=args.every,
            attacks=args.attacks,
            share=args.share,
        )
        attacked = _judge_attacks(Path(work, "attacks.log"), say) if args.attacks else []
    outcome = report.outcome
    memory = " -> ".join(f"{rss:.0f}" for rss in (*report.rss_mib[:1], *report.rss_mib[-1:]))
    sys.stdout.write(
        f"{outcome.requests} requests at {report.rate:.0f}/s (capacity {report.capacity:.0f}/s), "
        f"{len(outcome.failures)} failed, p50 {1e3 * outcome.percentile(0.5):.1f} ms, "
        f"p99 {1e3 * outcome.percentile(0.99):.1f} ms; {report.cycles} rollouts, memory "
        f"{memory} MiB, "
        f"{report.slope_mib_per_hour:+.1f} MiB an hour in the second half\n"
    )
    problems = report.problems() + attacked
    for problem in problems:
        sys.stderr.write(f"soak: error: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
