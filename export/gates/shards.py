"""Shards in the gates: one at a time in a server, together where only the whole says something."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shortlist.clients import contract
from shortlist.export.gates.quality import Comparison, check_quality
from shortlist.export.gates.questions import Answer
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.version import GateResult, size_bytes
from shortlist.serving.servers.check import FreshServable

__all__ = ["check_whole_quality", "merge_answers", "on_one_server", "without_partial"]


_FITS_BYTES = 2**30


def on_one_server(subjects: Sequence[Subject]) -> list[list[Subject]]:
    """Return the subjects by the server that loads them: one for all, or for each shard.

    Shards are for a corpus that one machine does not hold; small ones save the starts of servers.
    """
    if sum(size_bytes(subject.path) for subject in subjects) <= _FITS_BYTES:
        return [list(subjects)] if subjects else []
    parts: dict[int | None, list[Subject]] = {}
    for subject in subjects:
        shard = subject.manifest.shard
        parts.setdefault(None if shard is None else shard.number, []).append(subject)
    return list(parts.values())


def without_partial(
    comparisons: Mapping[str, Comparison | GateResult], subjects: Sequence[Subject]
) -> dict[str, Comparison | GateResult]:
    """Return the comparisons, skipped for a shard whose siblings cannot be asked.

    A shard's own answers compare nothing: another version has other candidates in it.
    """
    gate, kept = Gate("quality"), dict(comparisons)
    planned = {name for name, plan in comparisons.items() if isinstance(plan, Comparison)}
    for subject in subjects:
        shard, live = subject.manifest.shard, subject.live
        if shard is None or live is None or subject.name not in planned:
            continue
        siblings = _siblings(subject, subjects)
        if len(siblings) < shard.count:
            why = f"{shard} alone; `shortlist export` and `index` compare all shards together"
            kept[subject.name] = gate.skipped(why)
        elif any(
            sibling.live is None or sibling.live.version != live.version for sibling in siblings
        ):
            versions = [sibling.live.version if sibling.live else "none" for sibling in siblings]
            listed = ", ".join(map(str, versions))
            kept[subject.name] = gate.skipped(f"the live shards have different versions: {listed}")
    return kept


def check_whole_quality(
    comparison: Comparison,
    subject: Subject,
    subjects: Sequence[Subject],
    answers: Callable[[str], Sequence[Answer]],
    fresh: Mapping[str, FreshServable],
    live: Mapping[str, FreshServable],
    settings: GateSettings,
) -> GateResult:
    """Check the gate `quality` of a servable, or of the one that its shards make up.

    Args:
        comparison: Result of `plan_comparison`.
        subject: The new version.
        subjects: Every version with its siblings.
        answers: Returns the answers of a version to the comparison's queries.
        fresh: The new versions by name.
        live: The live versions by name, with their answers to the same queries.
        settings: Limits of the gates.
    """
    names = [sibling.name for sibling in _siblings(subject, subjects)]
    broken = [name for name in names if fresh[name].error is not None]
    if broken:
        return Gate("quality").skipped(f"{broken[0]} does not load")
    failed = [live[name] for name in names if live[name].error is not None]
    merged = merge_answers([live[name].answers for name in names])
    known = failed[0] if failed else replace(live[subject.name], answers=merged)
    own = merge_answers([answers(name) for name in names])
    return check_quality(comparison, fresh[subject.name], own, known, settings)


def merge_answers(by_shard: Sequence[Sequence[Answer]]) -> tuple[Answer, ...]:
    """Return the answers to the same queries, merged: best scores first, then by shard."""
    if len(by_shard) == 1:
        return tuple(by_shard[0])
    return tuple(_merged(parts) for parts in zip(*by_shard, strict=True))


def _merged(parts: Sequence[Answer]) -> Answer:
    rankings: list[Mapping[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            return part
        rankings.append(part)
    rows: list[list[str]] = []
    for ids_by_shard, scores_by_shard in zip(
        zip(*(part[contract.CANDIDATE_IDS] for part in rankings), strict=True),
        zip(*(part[contract.SCORES] for part in rankings), strict=True),
        strict=True,
    ):
        ids = [candidate for row in ids_by_shard for candidate in row]
        scores = [score for row in scores_by_shard for score in row]
        order = sorted(range(len(ids)), key=scores.__getitem__, reverse=True)
        rows.append([ids[column] for column in order])
    return {contract.CANDIDATE_IDS: rows}


def _siblings(subject: Subject, subjects: Sequence[Subject]) -> list[Subject]:
    """Return the shards of the same servable in order, or the subject alone."""
    shard = contract.parse_shard(subject.name)
    if subject.manifest.shard is None or shard is None:
        return [subject]
    by_name = {other.name: other for other in subjects}
    names = [contract.shard_name(shard[0], number, shard[2]) for number in range(shard[2])]
    return [by_name[name] for name in names if name in by_name]
