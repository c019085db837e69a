"""The latency gate: a new version must not be much slower than the live one."""

import statistics
import time
from collections.abc import Callable, Sequence

from shortlist.clients import ServingError, contract
from shortlist.export.gates.record import QUICK, Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.probe import Probe
from shortlist.serving.repository.version import GateResult

__all__ = ["check_latency"]

_TRIES = 3
_ROUNDS = 5
_QUERIES = 100  # per version and round, in turns
_WARM_UP_QUERIES = 20


def check_latency(
    subject: Subject,
    ask: Callable[[int, GoldenQuery], object],
    settings: GateSettings,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> GateResult:
    """Compare p99 of single queries, asking both versions in turns within one run.

    Args:
        subject: The new version.
        ask: Called with a version number and a query.
        settings: Limits of the gate.
        clock: Time in seconds.
    """
    ratio, slack = settings.max_latency_ratio, settings.latency_slack_ms
    gate = Gate("latency", f"p99 at most {ratio:g} times the live version's, or {slack:g} ms more")
    if settings.quick:
        return gate.skipped(QUICK)
    if subject.live is None:
        return gate.skipped("no live version to compare with")
    queries = _queries(subject)
    try:
        live_queries = _queries(subject.live)
    except RepositoryError as exc:
        return gate.skipped(str(exc))
    if not queries:
        return gate.skipped("the version has no known queries")
    if not live_queries and subject.probe is None:
        return gate.skipped(f"version {subject.live.version} has no known queries")
    if not live_queries or _same_inputs(subject.probe, subject.live.probe):
        live_queries = queries  # the same users

    def timed(version: int, queries: Sequence[GoldenQuery]) -> Callable[[int], float]:
        def milliseconds(number: int) -> float:
            started = clock()
            ask(version, queries[number % len(queries)])
            return (clock() - started) * 1000

        return milliseconds

    try:
        # A slow version is slow each time; another process on the machine is not.
        for _ in range(_TRIES):
            new, live = _p99_in_turns(
                timed(subject.version, queries), timed(subject.live.version, live_queries)
            )
            passed = new <= max(live * ratio, live + slack)
            if passed:
                break
    except ServingError as exc:
        return gate.failed(str(exc))
    return gate.result(passed, f"p99 {new:.2f} ms, version {subject.live.version}: {live:.2f} ms")


def _queries(version: Subject | Live) -> Sequence[GoldenQuery]:
    """Return queries for one user each, or else the known ones."""
    if version.probe is None:
        return version.golden
    return [
        GoldenQuery(signature=contract.SERVING_DEFAULT, inputs=inputs, outputs={})
        for inputs in version.probe.requests(1)
    ]


def _same_inputs(probe: Probe | None, other: Probe | None) -> bool:
    if probe is None or other is None:
        return False
    return (probe.inputs or {}).keys() == (other.inputs or {}).keys()


def _p99_in_turns(new: Callable[[int], float], live: Callable[[int], float]) -> tuple[float, float]:
    """Return each version's median p99 of all rounds, so that one hiccup decides nothing."""
    for number in range(_WARM_UP_QUERIES):
        new(number)
        live(number)
    rounds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(_QUERIES):
            # The order changes, so that neither version always meets a warm cache.
            order = ((0, new), (1, live)) if number % 2 == 0 else ((1, live), (0, new))
            for which, call in order:
                times[which].append(call(number))
        for which in (0, 1):
            rounds[which].append(statistics.quantiles(times[which], n=100)[98])
    return statistics.median(rounds[0]), statistics.median(rounds[1])
