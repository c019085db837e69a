"""The gates that need no server: each compares measurements with requirements."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shortlist.clients import contract
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.golden import GoldenQuery, compare
from shortlist.serving.repository.probe import Probe, read_corpus
from shortlist.serving.repository.version import (
    CorpusFacts,
    GateResult,
    checksums,
    find_custom_ops,
)
from shortlist.serving.servers.check import FreshServable

__all__ = [
    "UNKNOWN_USER",
    "complete",
    "corpus",
    "golden",
    "ops",
    "probe_queries",
    "quality",
    "signatures",
    "subject_queries",
]

UNKNOWN_USER = "\x00no user has this id"
_USERS_PER_REQUEST = 100

# Inputs and outputs of every signature of the contract; more outputs are fine.
_ANSWERS = {contract.CANDIDATE_IDS, contract.SCORES}
_CONTRACT: Mapping[str, tuple[set[str], set[str]]] = {
    contract.SERVING_DEFAULT: ({contract.USER_ID}, _ANSWERS),
    contract.RETRIEVE: (
        {
            contract.USER_ID,
            contract.K,
            contract.EXCLUDE,
            contract.EXCLUDE_SEEN,
            contract.FILTER_ANY,
            contract.FILTER_ALL,
            contract.FILTER_MIN,
            contract.FILTER_MAX,
        },
        _ANSWERS,
    ),
    contract.RETRIEVE_BY_EMBEDDING: ({contract.QUERY_EMBEDDING}, _ANSWERS),
    contract.EMBED: ({contract.USER_ID}, {contract.QUERY_EMBEDDING}),
    contract.SIMILAR: ({contract.CANDIDATE_ID}, _ANSWERS),
    contract.RATE: ({contract.USER_ID, contract.CANDIDATE_ID}, {contract.RATING}),
}


def subject_queries(subject: Subject) -> list[GoldenQuery]:
    """Return the queries for a subject: golden ones, an unknown user, the probe's users."""
    if subject.probe is None:
        return list(subject.golden)
    return [*subject.golden, *_ask([UNKNOWN_USER]), *probe_queries(subject.probe)]


def probe_queries(probe: Probe) -> list[GoldenQuery]:
    """Return the queries for the users of a probe."""
    return _ask([*probe.user_ids, *probe.held_out_user_ids])


def _ask(user_ids: Sequence[str]) -> list[GoldenQuery]:
    return [
        GoldenQuery(
            signature=contract.SERVING_DEFAULT,
            inputs={contract.USER_ID: list(user_ids[start : start + _USERS_PER_REQUEST])},
            outputs={},
        )
        for start in range(0, len(user_ids), _USERS_PER_REQUEST)
    ]


def complete(subject: Subject, fresh: FreshServable) -> GateResult:
    """Check that all files are as recorded and that a fresh process loads them."""
    gate = Gate("complete", "files as recorded, loads in a fresh process")
    recorded, current = subject.manifest.files, checksums(subject.path)
    if recorded is not None and recorded != current:
        differences = sorted(set(recorded.items()) ^ set(current.items()))
        return gate.failed(f"{differences[0][0]} is missing, new or changed")
    if fresh.error is not None:
        return gate.failed(f"does not load: {fresh.error}")
    if "VarHandleOp" in fresh.ops and not (subject.path / "variables/variables.index").is_file():
        # A server still loads it, but every request fails (serving#1086).
        return gate.failed("variables are missing")
    what = "as recorded" if recorded is not None else "not recorded"
    return gate.result(True, f"{len(current)} files {what}, loaded in {fresh.seconds:.2f} s")


def signatures(subject: Subject, fresh: FreshServable) -> GateResult:
    """Check that every signature has the contract's tensor names."""
    gate = Gate("signatures", f"{contract.SERVING_DEFAULT!r} and the contract's tensor names")
    if contract.SERVING_DEFAULT not in fresh.signatures:
        names = ", ".join(sorted(fresh.signatures)) or "none"
        return gate.failed(f"signatures: {names}")
    for name, (inputs, outputs) in _CONTRACT.items():
        if name not in fresh.signatures:
            continue
        wrong = sorted(inputs ^ set(fresh.signatures[name]["inputs"]))
        if wrong:
            return gate.failed(f"{name}: input {wrong[0]!r} is missing or unknown")
        missing = sorted(outputs - set(fresh.signatures[name]["outputs"]))
        if missing:
            return gate.failed(f"{name}: no output {missing[0]!r}")
    lost = sorted(set(subject.manifest.signatures) - set(fresh.signatures))
    if lost:
        return gate.failed(f"{lost[0]!r} is in the manifest but not in the SavedModel")
    return gate.result(True, f"{len(fresh.signatures)} signatures")


def golden(subject: Subject, fresh: FreshServable) -> GateResult:
    """Check that known queries get the same answers after loading."""
    gate = Gate("golden", "the answers from before saving, to 1e-5")
    if not subject.golden:
        return gate.skipped("the version has no known queries")
    answers = fresh.answers[: len(subject.golden)]
    for query, answer in zip(subject.golden, answers, strict=True):
        wrong = answer if isinstance(answer, str) else compare(query, answer)
        if wrong is not None:
            return gate.failed(wrong)
    return gate.result(True, f"{len(answers)} of {len(answers)} answers the same")


def ops(
    subject: Subject, fresh: FreshServable, settings: GateSettings, *, installed_producer: int
) -> GateResult:
    """Check that the target server has the ops and reads the graph's format."""
    target = settings.target_producer or installed_producer
    custom = find_custom_ops(fresh.ops)
    # Servables with ScaNN's ops are for the embedded server, never for a stock one.
    for_scann = subject.name.endswith("_scann") and settings.server.has_custom_ops
    unavailable = [op for op in custom if not (for_scann and op.startswith("Scann>"))]
    server = "the embedded server" if for_scann else "a stock server"
    gate = Gate("ops", f"ops of {server}, graph format at most {target}")
    measured = f"{len(fresh.ops)} ops, {len(custom)} of them custom, format {fresh.producer}"
    if unavailable:
        return gate.failed(f"{measured}: {unavailable[0]!r} is not available")
    return gate.result(fresh.producer <= target, measured)


def _rows(answers: Sequence[Mapping[str, Any] | str], name: str) -> list[Any] | None:
    rows: list[Any] = []
    for answer in answers:
        if isinstance(answer, str) or name not in answer:
            return None
        rows += answer[name]
    return rows


def quality(
    subject: Subject, fresh: FreshServable, live: FreshServable | None, settings: GateSettings
) -> GateResult:
    """Check recall against brute force, and the hit rate against the live version's.

    The live version answers for the same held-out interactions; candidates that it does
    not know are misses for it, as they are for its users.
    """
    probe = subject.probe
    required = f"recall@10 >= {settings.min_recall:g}"
    if probe is None:
        return Gate("quality", required).skipped("the version has no probe to measure it with")
    first = len(subject.golden) + 1  # after the known queries and the unknown user
    rows = _rows(fresh.answers[first:], contract.CANDIDATE_IDS)
    if rows is None:
        return Gate("quality", required).failed("no answers for the probe's users")
    count = len(probe.user_ids)
    recall = _recall(rows[:count], probe)
    measured = f"recall@{probe.k} {recall:.4f}"
    passed = recall >= settings.min_recall
    hits = _hits(rows[count:], probe)
    if hits:
        measured += f", hit rate@{probe.k} {sum(hits) / len(hits):.4f}"
    live_rows = _rows(live.answers, contract.CANDIDATE_IDS) if live is not None else None
    if hits and live_rows is not None and subject.live is not None:
        before = _hits(live_rows[count:], probe)
        drop, error = _paired_drop(before, hits)
        limit = settings.max_hit_rate_drop + 2 * error
        measured += f" (version {subject.live.version}: {sum(before) / len(before):.4f})"
        required += f", hit rate at most {limit:.4f} lower than the live version's"
        passed = passed and drop <= limit
    return Gate("quality", required).result(passed, measured)


def _recall(rows: Sequence[Sequence[str]], probe: Probe) -> float:
    shares = [
        len(set(exact) & set(row[: probe.k])) / len(exact)
        for exact, row in zip(probe.exact_ids, rows, strict=True)
    ]
    return sum(shares) / len(shares) if shares else 1.0


def _hits(rows: Sequence[Sequence[str]], probe: Probe) -> list[int]:
    return [
        int(candidate in row[: probe.k])
        for candidate, row in zip(probe.held_out_candidate_ids, rows, strict=True)
    ]


def _paired_drop(before: Sequence[int], after: Sequence[int]) -> tuple[float, float]:
    """Return the mean of before - after over the same interactions, and its standard error."""
    drops = [old - new for old, new in zip(before, after, strict=True)]
    mean = sum(drops) / len(drops)
    variance = sum((drop - mean) ** 2 for drop in drops) / max(1, len(drops) - 1)
    return mean, math.sqrt(variance / len(drops))


def corpus(subject: Subject, fresh: FreshServable, settings: GateSettings) -> GateResult:
    """Check the candidates, alone and compared with the live version's."""
    required = "no duplicates, no NaN, no zero-norm embeddings, an answer for unknown users"
    if subject.corpus is None:
        return Gate("corpus", required).skipped("the version has no list of its candidates")
    facts = subject.manifest.corpus or CorpusFacts()
    bad = {
        "duplicate ids": len(subject.corpus) - len(set(subject.corpus)),
        "NaN or infinite embeddings": facts.non_finite,
        "zero-norm embeddings": facts.zero_norm,
    }
    measured = f"{len(subject.corpus)} candidates, " + ", ".join(
        f"{count} {what}" for what, count in bad.items()
    )
    problem = _unknown_user_problem(subject, fresh)
    measured += f", unknown user: {problem or 'answered'}"
    passed = problem is None and not any(bad.values())
    before = read_corpus(subject.live.path) if subject.live is not None else None
    if before and subject.live is not None:
        change = len(subject.corpus) / len(before) - 1
        lost = len(set(before) - set(subject.corpus)) / len(set(before))
        measured += f"; compared with version {subject.live.version} {change:+.1%}, {lost:.1%} lost"
        required += (
            f"; size change at most {settings.max_size_change:.0%}, "
            f"at most {settings.max_lost:.0%} lost"
        )
        passed = passed and abs(change) <= settings.max_size_change and lost <= settings.max_lost
    return Gate("corpus", required).result(passed, measured)


def _unknown_user_problem(subject: Subject, fresh: FreshServable) -> str | None:
    answer = fresh.answers[len(subject.golden)]
    if isinstance(answer, str):
        return answer
    ids, scores = answer[contract.CANDIDATE_IDS][0], answer[contract.SCORES][0]
    known = answer.get(contract.KNOWN_USER)
    if known is not None and known[0]:
        return "treated as known"
    answer_scores = [score for candidate, score in zip(ids, scores, strict=True) if candidate]
    if not answer_scores:
        return "no candidates"
    return None if all(map(math.isfinite, answer_scores)) else "scores are not finite"
