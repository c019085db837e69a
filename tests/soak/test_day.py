"""A day of a corpus: an export at night, then updates under load, one of them killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import Filter, GrpcClient, RestClient, RetryPolicy, ServingError
from shortlist.serving.servers.serve import ServeRequest, running
from tests.support.command import environment, run
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

MODEL = "shop_ivf"
USERS, PRODUCTS, PRICE = 60, 120, 20.0
QUICK = (
    *("--index", "ivf", "--model", "shop", "--epochs", "1"),
    *("--embedding-dim", "8", "--seen-last-epochs", "0"),
)
PAUSE = 0.03  # seconds between a client's requests
Corpus = Mapping[str, float]  # price of each candidate


@dataclass
class Shop:
    """The changes of a day, as its files tell them: all since the export."""

    folder: Path
    prices: dict[str, float] = field(default_factory=dict)
    new: dict[str, float] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    withdrawn: list[str] = field(default_factory=list)

    def hour(self, number: int) -> Corpus:
        """Change prices, add and withdraw; return the corpus after."""
        chance = random.Random(number)
        self.new |= {f"new{number}-{each}": chance.choice((5.0, 95.0)) for each in range(3)}
        kept = [key for key in self.prices if key not in self.withdrawn]
        *gone, cheap, dear = chance.sample(kept, 4)
        self.withdrawn += gone
        self.changed |= {cheap: 1.5, dear: 99.5}
        self.changed = {key: cost for key, cost in self.changed.items() if key not in gone}
        self._write()
        corpus = {**self.prices, **self.new, **self.changed}
        return {key: cost for key, cost in corpus.items() if key not in self.withdrawn}

    def _write(self) -> None:
        for name, rows in (("new.csv", self.new), ("stock.csv", self.changed)):
            lines = [f"{key},{cost}" for key, cost in rows.items()]
            (self.folder / name).write_text("\n".join(["product_id,price", *lines, ""]))
        (self.folder / "withdrawn.txt").write_text("\n".join([*self.withdrawn, ""]))
        events = [f"u{user},{key},1800000000" for key in self.new for user in range(3)]
        (self.folder / "since.csv").write_text(
            "\n".join(["customer_id,product_id,ts", *events, ""])
        )


def shop(folder: Path) -> Shop:
    """Write the data of the export."""
    chance = random.Random(0)
    prices = {f"p{number}": chance.randrange(2, 60) + 0.5 for number in range(PRODUCTS)}
    lines = [f"{key},g{number % 5},{cost}" for number, (key, cost) in enumerate(prices.items())]
    (folder / "products.csv").write_text("\n".join(["product_id,genre,price", *lines, ""]))
    clicks = [
        f"u{user},p{user % 5 + 5 * int(24 * chance.random() ** 2)},{1700000000 + 3600 * step}"
        for user in range(USERS)
        for step in range(20)
    ]
    (folder / "clicks.csv").write_text("\n".join(["customer_id,product_id,ts", *clicks, ""]))
    (folder / "changes").mkdir()
    return Shop(folder / "changes", prices)


@dataclass
class Load:
    """Requests of clients that never retry, each answer compared with its version's corpus.

    Attributes:
        corpora: Corpus of each version.
        stable: Version that answers to requests which begin now; None while the label moves.
        answers: Number of answers by transport and version.
        wrong: What was wrong.
    """

    corpora: dict[int, Corpus]
    stable: int | None
    answers: dict[tuple[str, int], int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def ask(self, client: GrpcClient | RestClient, chance: random.Random) -> None:
        """Send a request for all candidates, or for all cheap ones."""
        stable = self.stable
        cheap = chance.random() < 0.5
        only = Filter(max={"price": PRICE}) if cheap else None
        try:
            (got,) = client.retrieve(
                [f"u{chance.randrange(USERS)}"], k=200, filter=only, label="stable"
            )
        except ServingError as exc:
            self.wrong.append(str(exc))
            return
        assert got.version is not None
        corpus = self.corpora[got.version]
        expected = {key for key, cost in corpus.items() if not cheap or cost <= PRICE}
        if set(got.candidate_ids) != expected:
            self.wrong.append(f"version {got.version}: {set(got.candidate_ids) ^ expected}")
        if stable is not None and got.version < stable:
            self.wrong.append(f"version {got.version} answered after the promote of {stable}")
        key = (type(client).__name__, got.version)
        self.answers[key] = self.answers.get(key, 0) + 1

    @contextmanager
    def on(self, grpc_address: str, rest_address: str) -> Iterator[None]:
        """Send requests during the context."""
        once, end = RetryPolicy(max_attempts=1), threading.Event()

        def work(client: GrpcClient | RestClient, seed: int) -> None:
            chance = random.Random(seed)
            while not end.wait(PAUSE):
                self.ask(client, chance)

        with (
            GrpcClient(grpc_address, model=MODEL, retry=once) as grpc,
            RestClient(rest_address, model=MODEL, retry=once) as rest,
        ):
            threads = [
                threading.Thread(target=work, args=(client, seed), daemon=True)
                for seed, client in enumerate((grpc, rest))
            ]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                end.set()
                for thread in threads:
                    thread.join(30)


class Day:
    """The commands of the day."""

    def __init__(self, folder: Path, address: str, load: Load) -> None:
        self._folder, self._load = folder, load
        self._address = ("--repository", str(folder / "models"), "--address", address)

    def roll_out(self, version: int) -> None:
        self.run("canary", str(version))
        self._load.stable = None
        self.run("promote", str(version))
        self._load.stable = version

    def prune(self) -> None:
        self.run("prune", "--keep", "2", "--grace", "0")

    def run(self, verb: str, *words: str) -> None:
        done = run(verb, *words, *self._address, cwd=self._folder)
        assert done.returncode == 0, done.stderr

    def update(self, *options: str) -> subprocess.Popen[str]:
        """Start the hourly job, in a session of its own."""
        job = ["sh", str(ROOT / "docker/jobs/update.sh"), f"models/{MODEL}", "changes", *options]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self._folder / "update.log").open("w") as log:
            return subprocess.Popen(
                job,
                cwd=self._folder,
                env={**environment(), "PATH": path},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def updated(self, gates: str) -> dict[str, Any]:
        """Run the hourly job to its end and return what it prints."""
        with self.update("--json", "--gates", gates) as process:
            out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, (self._folder / "update.log").read_text()
        result: dict[str, Any] = json.loads(out)
        return result

    def kill_one(self, seconds: float) -> None:
        """Kill an update at a random time of its first `seconds`; nothing may be left of it."""
        before = self.published()
        with self.update("--gates", "quick") as process:
            wait = random.uniform(0.2, 0.9) * seconds
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, f"ended within {wait:.1f} s"
        assert self.published() == before, f"killed after {wait:.1f} s"

    def published(self) -> list[str]:
        models = self._folder / "models"
        return sorted(str(path.relative_to(models)) for path in models.glob("[!.]*/[!.]*"))

    def size(self) -> int:
        return sum(path.stat().st_size for path in (self._folder / "models").rglob("*.*"))


def test_a_day_of_updates_under_load(tmp_path: Path) -> None:
    ours = shop(tmp_path)
    night = run(
        *("export", "--data", "clicks.csv", "--candidates", "products.csv"),
        *("--repository", "models", *QUICK),
        cwd=tmp_path,
        timeout=500,
    )
    assert night.returncode == 0, night.stderr
    load = Load({1: dict(ours.prices)}, stable=1)
    request = ServeRequest(repository=tmp_path / "models", log_file=tmp_path / "server.log")
    with running(request) as (server, _):
        day = Day(tmp_path, server.grpc_address, load)
        day.run("promote", "1")
        size, seconds = day.size(), 0.0
        with load.on(server.grpc_address, server.rest_address):
            for hour, gates in enumerate(("quick", "quick", "all")):
                corpus = ours.hour(hour)
                if hour == 1:
                    day.kill_one(seconds)
                started = time.monotonic()
                result = day.updated(gates)
                seconds = time.monotonic() - started
                verdicts = result["gates"][MODEL]
                measured = {"recall", "quality", "latency"} if gates == "quick" else set()
                passed = {gate for gate, verdict in verdicts.items() if verdict == "passed"}
                assert passed >= verdicts.keys() - measured - {"quality"}, verdicts
                assert result["update"]["added"] == 3
                load.corpora[result["version"]] = corpus
                day.roll_out(result["version"])
                day.prune()
                # The stable one, the one before it, and files of the repository itself.
                assert day.size() < 3 * size
    assert load.wrong == []
    assert {version for _, version in load.answers} == set(load.corpora)
    assert {kind for kind, _ in load.answers} == {"GrpcClient", "RestClient"}
    # A killed update may have taken a number.
    assert [int(Path(path).name) for path in day.published()] == sorted(load.corpora)[-2:]
