"""Puts versions before all gates."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from shortlist.export.gates import checks
from shortlist.export.gates.record import GATES
from shortlist.export.gates.server import serve_and_ask
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.version import GateResult, Verdict, write_manifest
from shortlist.serving.servers.check import Asked, FreshServable, ask_in_fresh_process

__all__ = ["record_in_manifest", "run_gates"]

log = logging.getLogger(__name__)


def run_gates(subjects: Sequence[Subject], settings: GateSettings) -> dict[str, list[GateResult]]:
    """Results of every gate for every servable; nothing is raised for a failed one.

    Two processes are started for all servables together: a fresh one that loads them
    (and their live versions) one after the other, and a model server of the target's kind.

    Args:
        subjects: Versions of different servables.
        settings: What is required.

    Returns:
        By servable name, in the order of `GATES`.

    Raises:
        ModelServerError: The fresh process or the server's program could not be started.
    """
    fresh, live, producer = _ask(subjects)
    results: dict[str, list[GateResult]] = {}
    for subject in subjects:
        own = fresh[subject.name]
        found = [checks.complete(subject, own)]
        if own.error is None:
            found += [
                checks.signatures(subject, own),
                checks.golden(subject, own),
                checks.ops(subject, own, settings, installed_producer=producer),
                checks.quality(subject, own, live.get(subject.name), settings),
                checks.corpus(subject, own, settings),
            ]
        results[subject.name] = found
    loadable = [one for one in subjects if fresh[one.name].error is None]
    served = serve_and_ask(loadable, settings) if loadable else {}
    for subject in subjects:
        found = results[subject.name] + served.get(subject.name, [])
        missing = set(GATES) - {result.gate for result in found}
        found += [
            GateResult(
                gate=gate, verdict=Verdict.SKIPPED, measured="it does not load", required="-"
            )
            for gate in GATES
            if gate in missing
        ]
        results[subject.name] = [_allowed(result, settings) for result in found]
    return results


def record_in_manifest(subject: Subject, results: Sequence[GateResult]) -> None:
    """Writes the gates' results into a staged version's manifest."""
    write_manifest(subject.path, replace(subject.manifest, gates=tuple(results)))


def _ask(
    subjects: Sequence[Subject],
) -> tuple[dict[str, FreshServable], dict[str, FreshServable], int]:
    """Loads every subject and its live version, and asks both the subject's probe."""
    asked = [
        Asked(
            name=one.name,
            version=one.version,
            path=one.path,
            queries=checks.standard_queries(one, one.probe),
        )
        for one in subjects
    ]
    with_live = [one for one in subjects if one.live is not None and one.probe is not None]
    for one in with_live:
        assert one.live is not None
        probe_only = replace(one, golden=(), probe=None)
        asked.append(
            Asked(
                name=one.name,
                version=one.live.version,
                path=one.live.path,
                queries=checks.standard_queries(probe_only, one.probe),
            )
        )
    answers = ask_in_fresh_process(asked)
    count = len(subjects)
    return (
        {one.name: got for one, got in zip(subjects, answers.servables[:count], strict=True)},
        {one.name: got for one, got in zip(with_live, answers.servables[count:], strict=True)},
        answers.tensorflow_producer,
    )


def _allowed(result: GateResult, settings: GateSettings) -> GateResult:
    if result.verdict is Verdict.FAILED and result.gate in settings.allow:
        log.warning("the gate %s failed and is overridden: %s", result.gate, result.measured)
        return replace(result, verdict=Verdict.ALLOWED)
    return result
