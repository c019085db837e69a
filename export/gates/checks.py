"""The gates that need no server: each compares what was measured with what is required."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shortlist.clients import contract
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.golden import GoldenQuery, compare
from shortlist.serving.repository.probe import Probe, read_corpus
from shortlist.serving.repository.version import (
    GateResult,
    Verdict,
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
    "quality",
    "signatures",
    "standard_queries",
]

UNKNOWN_USER = "\x00nobody has this id"
_FEEDS = 100  # users in one request

# Inputs and outputs that every signature of the contract has; outputs may be more.
_CONTRACT: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    contract.SERVING_DEFAULT: (
        frozenset({contract.USER_ID}),
        frozenset({contract.CANDIDATE_IDS, contract.SCORES}),
    ),
    contract.RETRIEVE: (
        frozenset(
            {
                contract.USER_ID,
                contract.K,
                contract.EXCLUDE,
                contract.EXCLUDE_SEEN,
                contract.FILTER_ANY,
                contract.FILTER_ALL,
                contract.FILTER_MIN,
                contract.FILTER_MAX,
            }
        ),
        frozenset({contract.CANDIDATE_IDS, contract.SCORES}),
    ),
    contract.RETRIEVE_BY_EMBEDDING: (
        frozenset({contract.QUERY_EMBEDDING}),
        frozenset({contract.CANDIDATE_IDS, contract.SCORES}),
    ),
    contract.EMBED: (frozenset({contract.USER_ID}), frozenset({contract.QUERY_EMBEDDING})),
    contract.SIMILAR: (
        frozenset({contract.CANDIDATE_ID}),
        frozenset({contract.CANDIDATE_IDS, contract.SCORES}),
    ),
    contract.RATE: (
        frozenset({contract.USER_ID, contract.CANDIDATE_ID}),
        frozenset({contract.RATING}),
    ),
}


def _result(gate: str, passed: bool, measured: str, required: str) -> GateResult:
    verdict = Verdict.PASSED if passed else Verdict.FAILED
    return GateResult(gate=gate, verdict=verdict, measured=measured, required=required)


def _skipped(gate: str, why: str, required: str) -> GateResult:
    return GateResult(gate=gate, verdict=Verdict.SKIPPED, measured=why, required=required)


def _ask(user_ids: Sequence[str]) -> list[GoldenQuery]:
    return [
        GoldenQuery(
            signature=contract.SERVING_DEFAULT,
            inputs={contract.USER_ID: list(user_ids[start : start + _FEEDS])},
            outputs={},
        )
        for start in range(0, len(user_ids), _FEEDS)
    ]


def standard_queries(subject: Subject, probe: Probe | None) -> list[GoldenQuery]:
    """What a fresh process asks: golden queries, an unknown user, the probe's users."""
    queries = list(subject.golden)
    if subject.probe is not None:
        queries += _ask([UNKNOWN_USER])
    if probe is not None:
        queries += _ask([*probe.user_ids, *probe.held_out_user_ids])
    return queries


def complete(subject: Subject, fresh: FreshServable) -> GateResult:
    """All files are as they were written, and a fresh process loads them."""
    required = "files as recorded, loads in a fresh process"
    recorded = subject.manifest.files
    found = checksums(subject.path)
    if recorded is not None and recorded != found:
        names = sorted(set(recorded.items()) ^ set(found.items()))
        return _result("complete", False, f"{names[0][0]} is missing, new or changed", required)
    if fresh.error is not None:
        return _result("complete", False, f"it does not load: {fresh.error}", required)
    if "VarHandleOp" in fresh.ops and not (subject.path / "variables/variables.index").is_file():
        # A server loads that all the same, and every request fails (serving#1086).
        return _result("complete", False, "its variables are missing", required)
    what = "as recorded" if recorded is not None else "not recorded"
    return _result(
        "complete", True, f"{len(found)} files {what}, loaded in {fresh.seconds:.2f} s", required
    )


def signatures(subject: Subject, fresh: FreshServable) -> GateResult:
    """Every signature has the contract's tensor names."""
    required = f"{contract.SERVING_DEFAULT!r} and the contract's tensor names"
    found = fresh.signatures
    if contract.SERVING_DEFAULT not in found:
        names = ", ".join(sorted(found)) or "none"
        return _result("signatures", False, f"there are: {names}", required)
    for name, (inputs, outputs) in _CONTRACT.items():
        if name not in found:
            continue
        wrong = sorted(inputs ^ set(found[name]["inputs"]))
        if wrong:
            return _result(
                "signatures", False, f"{name}: input {wrong[0]!r} is missing or unknown", required
            )
        missing = sorted(outputs - set(found[name]["outputs"]))
        if missing:
            return _result("signatures", False, f"{name}: no output {missing[0]!r}", required)
    promised = set(subject.manifest.signatures)
    lost = sorted(promised - set(found))
    if lost:
        return _result("signatures", False, f"{lost[0]!r} of the manifest is missing", required)
    return _result("signatures", True, f"{len(found)} signatures", required)


def golden(subject: Subject, fresh: FreshServable) -> GateResult:
    """Known queries get the same answers after loading."""
    required = "the answers from before saving, to 1e-5"
    if not subject.golden:
        return _skipped("golden", "the version carries no known queries", required)
    answers = fresh.answers[: len(subject.golden)]
    for query, answer in zip(subject.golden, answers, strict=True):
        wrong = answer if isinstance(answer, str) else compare(query, answer)
        if wrong is not None:
            return _result("golden", False, wrong, required)
    return _result("golden", True, f"{len(answers)} of {len(answers)} answers the same", required)


def ops(
    subject: Subject, fresh: FreshServable, settings: GateSettings, *, installed_producer: int
) -> GateResult:
    """The target server has the ops and reads the graph's format."""
    target = settings.target_producer or installed_producer
    custom = find_custom_ops(fresh.ops)
    # A servable that is made for ScaNN's ops goes to the embedded server, never to a stock one.
    for_scann = subject.name.endswith("_scann") and settings.server == "embedded"
    allowed = [op for op in custom if op.startswith("Scann>")] if for_scann else []
    where = "the embedded server" if for_scann else "a stock server"
    required = f"ops of {where}, graph format at most {target}"
    strange = sorted(set(custom) - set(allowed))
    measured = f"{len(fresh.ops)} ops, {len(custom)} of them custom, format {fresh.producer}"
    if strange:
        return _result("ops", False, f"{measured}: {strange[0]!r} is not there", required)
    return _result("ops", fresh.producer <= target, measured, required)


def _rows(answers: Sequence[Mapping[str, Any] | str], name: str) -> list[Any] | None:
    rows: list[Any] = []
    for answer in answers:
        if isinstance(answer, str) or name not in answer:
            return None
        rows += answer[name]
    return rows


def _probe_rows(subject: Subject, fresh: FreshServable) -> list[Any] | None:
    start = len(subject.golden) + (1 if subject.probe is not None else 0)
    return _rows(fresh.answers[start:], contract.CANDIDATE_IDS)


def quality(
    subject: Subject, fresh: FreshServable, live: FreshServable | None, settings: GateSettings
) -> GateResult:
    """Recall against brute force, and hit rate beside the live version's.

    The live version answers for the same held-out interactions; candidates that it does
    not know are misses for it, as they are for its users.
    """
    probe = subject.probe
    required = f"recall@10 >= {settings.min_recall:g}"
    if probe is None:
        return _skipped("quality", "the version carries nothing to measure it by", required)
    rows = _probe_rows(subject, fresh)
    if rows is None:
        return _result("quality", False, "it does not answer for the probe's users", required)
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
    return _result("quality", passed, measured, required)


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
    """Mean of before - after over the same interactions, and its standard error."""
    drops = [one - other for one, other in zip(before, after, strict=True)]
    mean = sum(drops) / len(drops)
    variance = sum((drop - mean) ** 2 for drop in drops) / max(1, len(drops) - 1)
    return mean, math.sqrt(variance / len(drops))


def corpus(subject: Subject, fresh: FreshServable, settings: GateSettings) -> GateResult:
    """The candidates are sane by themselves and beside the live version's."""
    required = "no duplicates, no NaN, no zero-norm embeddings, an answer for unknown users"
    if subject.corpus is None:
        return _skipped("corpus", "the version carries no list of its candidates", required)
    facts = subject.manifest.corpus
    duplicates = len(subject.corpus) - len(set(subject.corpus))
    bad = {
        "duplicate ids": duplicates,
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
        measured += f"; beside version {subject.live.version} {change:+.1%}, {lost:.1%} lost"
        required += (
            f"; size change at most {settings.max_size_change:.0%}, "
            f"at most {settings.max_lost:.0%} lost"
        )
        passed = passed and abs(change) <= settings.max_size_change and lost <= settings.max_lost
    return _result("corpus", passed, measured, required)


def _unknown_user_problem(subject: Subject, fresh: FreshServable) -> str | None:
    answer = fresh.answers[len(subject.golden)]
    if isinstance(answer, str):
        return answer
    ids, scores = answer[contract.CANDIDATE_IDS][0], answer[contract.SCORES][0]
    known = answer.get(contract.KNOWN_USER)
    if known is not None and known[0]:
        return "taken for a known one"
    answered = [score for one, score in zip(ids, scores, strict=True) if one]
    if not answered:
        return "no candidates"
    return None if all(math.isfinite(score) for score in answered) else "scores are not finite"
