"""The latency gate: a new version must not be much slower than the live one."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from shortlist.clients import ServingError
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.version import GateResult

__all__ = ["check_latency"]

_TRIES = 3
_ROUNDS = 5
_QUERIES = 100  # per version and round, in turns
_WARM_UP_QUERIES = 20


def check_latency(
    subject: Subject,
    ask: Callable[[int, Mapping[str, Any]], object],
    settings: GateSettings,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> GateResult:
    """Compare p99 of single queries, asking both versions in turns within one run.

    Args:
        subject: The new version.
        ask: Called with a version number and the inputs of a query for one user.
        settings: Limits of the gate.
        clock: Time in seconds.
    """
    ratio, slack = settings.max_latency_ratio, settings.latency_slack_ms
    gate = Gate("latency", f"p99 at most {ratio:g} times the live version's, or {slack:g} ms more")
    if subject.live is None or subject.probe is None:
        return gate.skipped("no live version to compare with")
    queries = list(subject.probe.requests(1))

    def timed(version: int) -> Callable[[int], float]:
        def milliseconds(number: int) -> float:
            started = clock()
            ask(version, queries[number % len(queries)])
            return (clock() - started) * 1000

        return milliseconds

    try:
        # A slow version is slow each time; another process on the machine is not.
        for _ in range(_TRIES):
            new, live = _p99_in_turns(timed(subject.version), timed(subject.live.version))
            passed = new <= max(live * ratio, live + slack)
            if passed:
                break
    except ServingError as exc:
        return gate.failed(str(exc))
    return gate.result(passed, f"p99 {new:.2f} ms, version {subject.live.version}: {live:.2f} ms")


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
