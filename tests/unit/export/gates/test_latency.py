"""The latency gate on clients that take a given time."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.errors import Unavailable
from shortlist.export.gates import server as gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving.repository.probe import Probe
from shortlist.serving.repository.version import GateResult, Manifest, Verdict


class Client:
    """Answers after a time that depends on the version, on a clock of its own."""

    def __init__(self, milliseconds: Callable[[int], float]) -> None:
        self.now = 0.0
        self._milliseconds = milliseconds

    def predict(self, inputs: Any, *, model: str, version: int) -> None:
        self.now += self._milliseconds(version) / 1000


def latency(
    milliseconds: Callable[[int], float], monkeypatch: pytest.MonkeyPatch, *, live: bool = True
) -> GateResult:
    client: Any = Client(milliseconds)
    monkeypatch.setattr("time.perf_counter", lambda: client.now)
    path = Path("nowhere")
    subject = Subject(
        name="m",
        version=2,
        path=path,
        manifest=Manifest(),
        golden=(),
        probe=Probe(
            k=10,
            user_ids=["1"],
            exact_ids=[["a"]],
            held_out_user_ids=[],
            held_out_candidate_ids=[],
        ),
        corpus=None,
        live=Live(version=1, path=path) if live else None,
    )
    running = gates._Running(grpc=client, rest=client, seconds=1.0, memory=None)
    return gates._latency(subject, running, GateSettings())


def test_an_equal_version_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    result = latency(lambda version: 20 * chance.lognormvariate(0, 0.2), monkeypatch)
    assert result.verdict is Verdict.PASSED


def test_a_slow_version_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    result = latency(lambda version: 40.0 if version == 2 else 20.0, monkeypatch)
    assert result.verdict is Verdict.FAILED
    assert result.measured == "p99 40.00 ms, version 1: 20.00 ms"


def test_hiccups_of_the_machine_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour on a shared machine stops either version for a moment, now and then."""
    chance = random.Random(1)

    def with_hiccups(version: int) -> float:
        return 200.0 if chance.random() < 0.005 else 20.0

    assert latency(with_hiccups, monkeypatch).verdict is Verdict.PASSED


def test_without_a_live_version_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = latency(lambda version: 1.0, monkeypatch, live=False)
    assert result.verdict is Verdict.SKIPPED


def test_a_version_that_fails_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(version: int) -> float:
        raise Unavailable("no answer")

    result = latency(gone, monkeypatch)
    assert (result.verdict, result.measured) == (Verdict.FAILED, "no answer")
