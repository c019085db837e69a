"""Run all gates on versions."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from shortlist.export.gates import checks
from shortlist.export.gates.record import GATES, Gate
from shortlist.export.gates.server import run_server_gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.version import GateResult, Verdict
from shortlist.serving.servers.check import Asked, FreshServable, ask_in_fresh_process

__all__ = ["run_gates"]

log = logging.getLogger(__name__)


def run_gates(subjects: Sequence[Subject], settings: GateSettings) -> dict[str, list[GateResult]]:
    """Run every gate on every servable; a failed gate raises nothing.

    Two processes are started for all servables together: a fresh one that loads them
    (and their live versions) one after the other, and a model server of the target's kind.

    Args:
        subjects: Versions of different servables.
        settings: Limits of the gates.

    Returns:
        Results by servable name, in the order of `GATES`.

    Raises:
        ModelServerError: The fresh process or the server's program could not be started.
    """
    fresh, live, producer = _ask(subjects)
    results = {
        subject.name: [checks.complete(subject, fresh[subject.name])] for subject in subjects
    }
    loadable = [subject for subject in subjects if fresh[subject.name].error is None]
    for subject in loadable:
        own = fresh[subject.name]
        results[subject.name] += [
            checks.signatures(subject, own),
            checks.golden(subject, own),
            checks.ops(subject, own, settings, installed_producer=producer),
            checks.quality(subject, own, live.get(subject.name), settings),
            checks.corpus(subject, own, settings),
        ]
    if loadable:
        for name, served in run_server_gates(loadable, settings).items():
            results[name] += served
    for name, measured in results.items():
        done = {result.gate for result in measured}
        measured += [Gate(gate).skipped("does not load") for gate in GATES if gate not in done]
        results[name] = [_allowed(result, settings) for result in measured]
    return results


def _ask(
    subjects: Sequence[Subject],
) -> tuple[dict[str, FreshServable], dict[str, FreshServable], int]:
    """Load every subject and its live version, and ask both the subject's probe."""
    asked = [
        Asked(
            name=subject.name,
            version=subject.version,
            path=subject.path,
            queries=checks.subject_queries(subject),
        )
        for subject in subjects
    ]
    live = [
        Asked(
            name=subject.name,
            version=subject.live.version,
            path=subject.live.path,
            queries=checks.probe_queries(subject.probe),
        )
        for subject in subjects
        if subject.live is not None and subject.probe is not None
    ]
    answers = ask_in_fresh_process([*asked, *live])
    names = [servable.name for servable in asked], [servable.name for servable in live]
    count = len(asked)
    return (
        dict(zip(names[0], answers.servables[:count], strict=True)),
        dict(zip(names[1], answers.servables[count:], strict=True)),
        answers.tensorflow_producer,
    )


def _allowed(result: GateResult, settings: GateSettings) -> GateResult:
    if result.verdict is Verdict.FAILED and result.gate in settings.allow:
        log.warning("overriding the failed gate %s: %s", result.gate, result.measured)
        return replace(result, verdict=Verdict.ALLOWED)
    return result
