"""The latency gate, with a clock that each query moves by a given time."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shortlist.clients.errors import Unavailable
from shortlist.export.gates.latency import check_latency
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving.repository.golden import GoldenQuery, write_golden
from shortlist.serving.repository.probe import Probe
from shortlist.serving.repository.version import GateResult, Manifest, Verdict


def latency(milliseconds: Callable[[int], float], *, live: bool = True) -> GateResult:
    """Run the gate on a version 2 whose queries take the given time, by version."""
    path, now = Path("nowhere"), 0.0
    probe = Probe(k=10, user_ids=["1"], exact_ids=[["a"]])
    subject = Subject(
        name="m",
        version=2,
        path=path,
        manifest=Manifest(),
        golden=(),
        probe=probe,
        corpus=None,
        sample=None,
        live=Live(version=1, path=path) if live else None,
    )

    def ask(version: int, query: GoldenQuery) -> None:
        nonlocal now
        now += milliseconds(version) / 1000

    return check_latency(subject, ask, GateSettings(), clock=lambda: now)


def test_an_equal_version_passes() -> None:
    chance = random.Random(1)
    result = latency(lambda version: 20 * chance.lognormvariate(0, 0.2))
    assert result.verdict is Verdict.PASSED


def test_a_slow_version_fails() -> None:
    result = latency(lambda version: 40.0 if version == 2 else 20.0)
    assert result.verdict is Verdict.FAILED
    assert result.measured == "p99 40.00 ms, version 1: 20.00 ms"


def test_hiccups_of_the_machine_decide_nothing() -> None:
    """Other work on a shared machine stops either version for a moment, now and then."""
    chance = random.Random(1)

    def with_hiccups(version: int) -> float:
        return 200.0 if chance.random() < 0.005 else 20.0

    assert latency(with_hiccups).verdict is Verdict.PASSED


def test_without_a_live_version_there_is_nothing_to_compare() -> None:
    result = latency(lambda version: 1.0, live=False)
    assert result.verdict is Verdict.SKIPPED


def test_a_version_that_stops_answering_fails() -> None:
    def unavailable(version: int) -> float:
        raise Unavailable("no answer")

    result = latency(unavailable)
    assert (result.verdict, result.measured) == (Verdict.FAILED, "no answer")


def test_versions_without_probe_are_asked_their_own_known_queries(tmp_path: Path) -> None:
    """Input names of foreign SavedModels may change from one version to the next."""
    own, other = (
        GoldenQuery(signature=signature, inputs={name: ["1"]}, outputs={})
        for signature, name in (("serving_default", "input_1"), ("recommend", "who"))
    )
    write_golden(tmp_path, [other])
    subject = Subject(
        name="m",
        version=2,
        path=tmp_path,
        manifest=Manifest(),
        golden=(own,),
        probe=None,
        corpus=None,
        sample=None,
        live=Live(version=1, path=tmp_path),
    )
    asked: set[tuple[int, str]] = set()

    def ask(version: int, query: GoldenQuery) -> None:
        asked.add((version, query.signature))

    def gate(subject: Subject) -> GateResult:
        return check_latency(subject, ask, GateSettings(), clock=lambda: 0.0)

    assert gate(subject).verdict is Verdict.PASSED
    assert asked == {(2, "serving_default"), (1, "recommend")}
    assert gate(replace(subject, golden=())).measured == "the version has no known queries"
    bare = replace(subject, live=Live(version=1, path=tmp_path / "bare"))
    assert gate(bare).measured == "version 1 has no known queries"
