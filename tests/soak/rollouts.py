"""Roll out one version after another while REST and gRPC clients send requests.

`python -m tests.soak.rollouts --rollouts 100` (`make soak`) prints a line per rollout and a
summary. The exit status is 1 if a request failed, a wrong version answered, or memory grew.
`make test-soak` runs a few rollouts.
"""

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shortlist.clients import GrpcClient, RestClient, RetryPolicy, ServingError, contract
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, STABLE, ModelEntry, write_config
from shortlist.serving.rollout.apply import ApplyOptions, apply
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.prune import prune
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.rollout.state import CANARY
from shortlist.serving.rollout.steps import StepOptions
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer
from tests.soak.soak import MEMORY_SLACK_MIB, SOURCES, make_sources

__all__ = ["Report", "main", "run_rollouts"]

NAME = "retrieval_brute_force"
SOURCE = "brute_force"  # its folder among those of `tests.soak.servables`
LABELS = (STABLE, CANARY)
REPLICAS = 2
PAUSE = 0.004  # seconds between a client's requests: load, but not overload
ROLLBACK_EVERY = 5


def _source(version: int) -> int:
    """Return the source that a version is a copy of; its answers contain this number."""
    return version % SOURCES + 1


@dataclass
class Truth:
    """The versions that may answer for a label: two while it moves."""

    _meant: dict[str, frozenset[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def moving(self, **targets: int) -> Iterator[None]:
        """Move labels to these versions during the context."""
        with self._lock:
            for label, version in targets.items():
                self._meant[label] = self._meant.get(label, frozenset()) | {version}
        yield
        with self._lock:
            for label, version in targets.items():
                self._meant[label] = frozenset({version})

    def meant(self, label: str) -> frozenset[int]:
        with self._lock:
            return self._meant[label]


@dataclass
class Seen:
    """Answers and failures that the clients saw."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class _Worker(threading.Thread):
    """A client that sends requests until the end and never retries."""

    def __init__(
        self, client: GrpcClient | RestClient, truth: Truth, seen: Seen, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._client, self._truth, self._seen, self._ending = client, truth, seen, stop
        self._transport = "gRPC" if isinstance(client, GrpcClient) else "REST"

    def run(self) -> None:
        chance = random.Random(self.name)
        while not self._ending.wait(PAUSE):
            label = chance.choice(LABELS)
            before = self._truth.meant(label)
            started = time.monotonic()
            try:
                answer = self._client.predict(
                    {contract.USER_ID: [f"user-{chance.randrange(1000)}"]}, model=NAME, label=label
                )
            except ServingError as exc:
                self._seen.failures.append(f"{self._transport} {label}: {exc}")
                continue
            self._seen.latencies.append(time.monotonic() - started)
            meant = before | self._truth.meant(label)
            said = answer.outputs[contract.SERVABLE_VERSION][0]
            if said not in {_source(version) for version in meant} or (
                # Over REST, only the number of the copy identifies the version.
                self._transport == "gRPC" and answer.version not in meant
            ):
                self._seen.failures.append(
                    f"{self._transport} {label}: version {answer.version} (a copy of {said}) "
                    f"answered, meant were {sorted(meant)}"
                )
            self._seen.answers[self._transport, label] += 1


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of the rollouts.

    Attributes:
        rollouts: Number of rollouts.
        rollbacks: Number of rollouts that were rolled back once.
        seen: Answers and failures that the clients saw.
        rss_mib: Resident memory of the first replica after each rollout.
        seconds: Duration.
    """

    rollouts: int
    rollbacks: int
    seen: Seen
    rss_mib: Sequence[float]
    seconds: float

    def problems(self) -> list[str]:
        """Return the problems as sentences."""
        problems = (
            [f"{len(self.seen.failures)} requests failed, such as {self.seen.failures[0]}"]
            if self.seen.failures
            else []
        )
        silent = {(kind, label) for kind in ("gRPC", "REST") for label in LABELS}
        silent -= set(self.seen.answers)
        if silent:
            problems.append(f"no requests for {sorted(silent)}")
        early, late = self.rss_mib[2:7], self.rss_mib[-5:]
        if len(self.rss_mib) >= 20 and _median(late) - _median(early) > MEMORY_SLACK_MIB:
            problems.append(f"memory grew from {_median(early):.0f} to {_median(late):.0f} MiB")
        return problems


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


class _Controller:
    """Publish, roll out, roll back and prune, as the verbs do."""

    def __init__(self, fleet: Fleet, sources: Path, truth: Truth) -> None:
        self._fleet, self._sources, self._truth = fleet, sources, truth
        self._options = ApplyOptions(step=StepOptions(timeout=60, poll_interval=0.05), why="soak")
        self.rollbacks = 0

    def publish(self) -> int:
        with self._fleet.repository.publisher([NAME]) as publisher:
            source = self._sources / SOURCE / str(_source(publisher.version))
            shutil.copytree(source, publisher.stage(NAME), dirs_exist_ok=True)
            publisher.publish()
        return publisher.version

    def roll_out(self, version: int, *, with_rollback: bool) -> None:
        if with_rollback:
            stable = max(self._truth.meant(STABLE))
            self._to_stable(version)
            with self._truth.moving(stable=stable, canary=stable):
                self._apply("rollback")
            self.rollbacks += 1
        self._to_stable(version)
        prune(self._fleet, [NAME], keep=2, grace=0)

    def first(self, version: int) -> None:
        with self._truth.moving(stable=version, canary=version):
            self._apply("promote", version)

    def _to_stable(self, version: int) -> None:
        with self._truth.moving(canary=version):
            self._apply("canary", version)
        with self._truth.moving(stable=version):
            self._apply("promote")

    def _apply(self, action: str, version: int | None = None) -> None:
        apply(self._fleet, NAME, action, version, options=self._options)


def run_rollouts(
    work: Path,
    *,
    say: Callable[[str], None],
    rollouts: int = 100,
    seconds: float = float("inf"),
    kind: ServerKind = ServerKind.EMBEDDED,
) -> Report:
    """Roll out under load, on replicas that share one repository.

    Args:
        work: Folder to work in.
        say: Callback for progress, called with a line per rollout.
        rollouts: Maximum number of rollouts.
        seconds: Time after which no other rollout starts.
        kind: Kind of server.
    """
    say("writing the servables")
    make_sources(work / "sources")
    root = work / "models"
    truth, seen, stop = Truth(), Seen(), threading.Event()
    with ExitStack() as stack:
        repository = ModelRepository(root)
        with repository.publisher([NAME]) as publisher:
            source = work / "sources" / SOURCE / str(_source(1))
            shutil.copytree(source, publisher.stage(NAME), dirs_exist_ok=True)
            publisher.publish()
        config = root / CONFIG_FILE
        write_config(config, root, {NAME: ModelEntry(versions=(1,))})
        servers = [stack.enter_context(_server(kind, root, config)) for _ in range(REPLICAS)]
        targets = [stack.enter_context(ReplicaClient(server.grpc_address)) for server in servers]
        fleet = Fleet(repository=repository, servers=tuple(targets), config_file=ConfigFile(config))
        for server in servers:
            with GrpcClient(server.grpc_address, model=NAME) as client:
                client.wait_until_available(timeout=120)
        controller = _Controller(fleet, work / "sources", truth)
        controller.first(1)
        workers = _workers(stack, servers, truth, seen, stop)
        started = time.monotonic()
        rss: list[float] = []
        try:
            while len(rss) < rollouts and time.monotonic() - started < seconds:
                rollout_started = time.monotonic()
                version = controller.publish()
                controller.roll_out(version, with_rollback=len(rss) % ROLLBACK_EVERY == 3)
                rss.append(_rss_mib(servers[0].pid))
                say(
                    f"version {version} stable after {time.monotonic() - rollout_started:.1f} s: "
                    f"{sum(seen.answers.values())} answers, {len(seen.failures)} failed, "
                    f"{rss[-1]:.0f} MiB"
                )
        finally:
            stop.set()
            for worker in workers:
                worker.join(30)
    return Report(
        rollouts=len(rss),
        rollbacks=controller.rollbacks,
        seen=seen,
        rss_mib=rss,
        seconds=time.monotonic() - started,
    )


def _server(kind: ServerKind, root: Path, config: Path) -> ModelServer:
    grpc_port = claim_port(0, option="--port")
    options = ServerOptions(
        model_config_file=config,
        repository=root,
        grpc_port=grpc_port,
        rest_port=claim_port(0, option="--rest-port"),
        flags=("--grpc_max_threads=64", "--max_num_load_retries=0"),
        log_file=root.parent / f"server-{grpc_port}.log",
    )
    return ModelServer(kind, options)


def _workers(
    stack: ExitStack,
    servers: Sequence[ModelServer],
    truth: Truth,
    seen: Seen,
    stop: threading.Event,
) -> list[_Worker]:
    """Start a client per transport and replica, without retries."""
    once = RetryPolicy(max_attempts=1)
    workers = []
    for server in servers:
        clients: list[GrpcClient | RestClient] = [
            stack.enter_context(GrpcClient(server.grpc_address, model=NAME, retry=once)),
            stack.enter_context(RestClient(server.rest_address, model=NAME, retry=once)),
        ]
        workers += [_Worker(client, truth, seen, stop) for client in clients]
    for worker in workers:
        worker.start()
    return workers


def _rss_mib(pid: int | None) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmRSS")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.rollouts",
        description=__doc__,
        epilog="Example: python -m tests.soak.rollouts --rollouts 5",
    )
    parser.add_argument(
        "--rollouts", type=int, default=100, help="number of rollouts (default: %(default)s)"
    )
    parser.add_argument(
        "--server",
        choices=("embedded", "binary"),
        default="embedded",
        help="server; binary is the tensorflow_model_server on PATH (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="shortlist-rollouts-") as work:
        report = run_rollouts(
            Path(work),
            say=lambda line: print(line, file=sys.stderr),  # noqa: T201
            rollouts=args.rollouts,
            kind=ServerKind(args.server),
        )
    latencies = sorted(report.seen.latencies)
    sys.stdout.write(
        f"{report.rollouts} rollouts and {report.rollbacks} rollbacks on {REPLICAS} replicas in "
        f"{report.seconds:.0f} s: {len(latencies)} answers, {len(report.seen.failures)} failures, "
        f"p50 {1e3 * latencies[len(latencies) // 2]:.1f} ms, "
        f"p99 {1e3 * latencies[int(len(latencies) * 0.99)]:.1f} ms, memory "
        f"{report.rss_mib[0]:.0f} -> {report.rss_mib[-1]:.0f} MiB\n"
    )
    for problem in report.problems():
        sys.stderr.write(f"rollouts: error: {problem}\n")
    return 1 if report.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
