"""Run all gates on versions."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shortlist.clients.cli.progress import Work, working
from shortlist.export.gates import checks
from shortlist.export.gates.quality import Comparison, plan_comparison
from shortlist.export.gates.questions import ByPurpose, questions, sort_answers
from shortlist.export.gates.record import GATES, QUICK, Gate
from shortlist.export.gates.server import run_server_gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.shards import check_whole_quality, on_one_server, without_partial
from shortlist.export.gates.subject import Subject
from shortlist.serving.errors import ModelServerError
from shortlist.serving.installed import scann_problem
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.version import GateResult, Verdict
from shortlist.serving.servers.check import Asked, FreshServable, ask_in_fresh_process

__all__ = ["run_gates"]

log = logging.getLogger(__name__)


def run_gates(subjects: Sequence[Subject], settings: GateSettings) -> dict[str, list[GateResult]]:
    """Run every gate on every servable; a failed gate raises nothing.

    Two processes are started for all servables together: a fresh one that loads them
    (and their live versions) one after the other, and a model server of the target's kind, of
    which each shard of a large corpus gets its own.

    Args:
        subjects: Versions of different servables.
        settings: Limits of the gates.

    Returns:
        Results by servable name, in the order of `GATES`.

    Raises:
        ModelServerError: The fresh process or the server's program could not be started, or
            lacks ScaNN.
    """
    with working("servables", 2 * len(subjects)) as work:  # loaded, then served
        return _run_gates(subjects, settings, work)


def _run_gates(
    subjects: Sequence[Subject], settings: GateSettings, work: Work
) -> dict[str, list[GateResult]]:
    problem = scann_problem()
    for subject in subjects:
        if problem and any(op.startswith("Scann>") for op in subject.manifest.ops or ()):
            raise ModelServerError(f"the gates cannot run {subject.name}: {problem}")
    comparisons = without_partial(
        {subject.name: _comparison(subject, settings) for subject in subjects}, subjects
    )
    asked = {
        subject.name: questions(subject, _queries(comparisons[subject.name]))
        for subject in subjects
    }
    fresh, live, producer = _ask(subjects, asked, allow_file_ops=settings.allow_file_ops)
    work.done += len(subjects)
    results = {
        subject.name: [
            checks.ops(subject, fresh[subject.name], settings, installed_producer=producer)
            if _refused(fresh[subject.name])
            else checks.complete(subject, fresh[subject.name])
        ]
        for subject in subjects
    }
    loadable = [subject for subject in subjects if fresh[subject.name].error is None]
    answered = {
        subject.name: sort_answers(asked[subject.name], fresh[subject.name].answers)
        for subject in loadable
    }
    for subject in loadable:
        name, own = subject.name, fresh[subject.name]
        answers = answered[name]
        comparison = comparisons[name]
        results[name] += [
            checks.signatures(subject, own),
            checks.golden(
                subject,
                answers.golden,
                [*answers.probe, *answers.unknown_user],
                recorded=answers.recorded,
            ),
            checks.ops(subject, own, settings, installed_producer=producer),
            Gate("recall").skipped(QUICK)
            if settings.quick
            else checks.recall(subject, answers.probe, settings),
            check_whole_quality(
                comparison,
                subject,
                subjects,
                lambda name: answered[name].comparison,
                fresh,
                live,
                settings,
            )
            if isinstance(comparison, Comparison)
            else comparison,
            checks.corpus(subject, answers.unknown_user, settings),
        ]
    for together in on_one_server(loadable):
        for name, served in run_server_gates(together, settings).items():
            results[name] += served
        work.done += len(together)
    for name, measured in results.items():
        done = {result.gate for result in measured}
        why = "not loaded because of its ops" if _refused(fresh[name]) else "does not load"
        measured += [Gate(gate).skipped(why) for gate in GATES if gate not in done]
        results[name] = [
            _allowed(result, settings)
            for result in sorted(measured, key=lambda result: GATES.index(result.gate))
        ]
    return results


def _comparison(subject: Subject, settings: GateSettings) -> Comparison | GateResult:
    return Gate("quality").skipped(QUICK) if settings.quick else plan_comparison(subject, settings)


def _refused(fresh: FreshServable) -> bool:
    """Return True if a SavedModel was not loaded because it could reach out of the process."""
    return fresh.error is not None and bool(fresh.file_ops)


def _queries(comparison: Comparison | GateResult) -> list[GoldenQuery]:
    return comparison.queries() if isinstance(comparison, Comparison) else []


def _ask(
    subjects: Sequence[Subject],
    asked: Mapping[str, ByPurpose[GoldenQuery]],
    *,
    allow_file_ops: bool,
) -> tuple[dict[str, FreshServable], dict[str, FreshServable], int]:
    """Load every subject, and the live versions that are compared with one, and ask them."""
    own = [
        Asked(
            name=subject.name,
            version=subject.version,
            path=subject.path,
            queries=asked[subject.name].in_order(),
            allow_file_ops=allow_file_ops,
        )
        for subject in subjects
    ]
    live = [
        Asked(
            name=subject.name,
            version=subject.live.version,
            path=subject.live.path,
            queries=asked[subject.name].comparison,
            allow_file_ops=allow_file_ops,
        )
        for subject in subjects
        if subject.live is not None and asked[subject.name].comparison
    ]
    answers = ask_in_fresh_process([*own, *live])
    answered = [
        (servable.name, facts)
        for servable, facts in zip([*own, *live], answers.servables, strict=True)
    ]
    return dict(answered[: len(own)]), dict(answered[len(own) :]), answers.tensorflow_producer


def _allowed(result: GateResult, settings: GateSettings) -> GateResult:
    if result.verdict is Verdict.FAILED and result.gate in settings.allow:
        log.warning("overriding the failed gate %s: %s", result.gate, result.measured)
        return replace(result, verdict=Verdict.ALLOWED)
    return result
