"""The gates that need no server: each compares measurements with requirements."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from shortlist.clients import contract
from shortlist.clients.interface import RetrievalInterface
from shortlist.export.config import SCANN_NAMESPACE
from shortlist.export.gates.foreign import find_retrieval
from shortlist.export.gates.questions import Answer, candidate_rows
from shortlist.export.gates.record import Gate
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.golden import GoldenQuery, compare
from shortlist.serving.repository.version import (
    CorpusFacts,
    GateResult,
    checksums,
    find_custom_ops,
)
from shortlist.serving.servers.check import FreshServable

__all__ = [
    "complete",
    "corpus",
    "golden",
    "ops",
    "recall",
    "signatures",
]

_SHOWN = 200  # characters of a query
# Inputs and outputs of every signature of the contract; more outputs are fine.
_ANSWERS = {contract.CANDIDATE_IDS, contract.SCORES}
_RETRIEVE = {
    contract.USER_ID,
    contract.K,
    contract.EXCLUDE,
    contract.EXCLUDE_SEEN,
    contract.FILTER_ANY,
    contract.FILTER_ALL,
    contract.FILTER_MIN,
    contract.FILTER_MAX,
}
_QUERY = {
    contract.USER_ID,
    contract.HISTORY,
    contract.HISTORY_AGE,
    contract.HISTORY_WEIGHT,
    contract.FEATURES,
}
_CONTRACT: Mapping[str, tuple[set[str], set[str]]] = {
    contract.SERVING_DEFAULT: ({contract.USER_ID}, _ANSWERS),
    contract.RETRIEVE: (_RETRIEVE, _ANSWERS),
    contract.RETRIEVE_BY_EMBEDDING: ({contract.QUERY_EMBEDDING}, _ANSWERS),
    contract.RETRIEVE_BY_QUERY: (_RETRIEVE | _QUERY | {contract.EXCLUDE_HISTORY}, _ANSWERS),
    contract.EMBED: ({contract.USER_ID}, {contract.QUERY_EMBEDDING}),
    contract.EMBED_BY_QUERY: (_QUERY, {contract.QUERY_EMBEDDING}),
    contract.SIMILAR: ({contract.CANDIDATE_ID}, _ANSWERS),
    contract.RATE: ({contract.USER_ID, contract.CANDIDATE_ID}, {contract.RATING}),
}


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
    """Check that every signature has the contract's tensor names, or that there is any."""
    if not subject.manifest.exported:
        return _callable(subject, fresh)
    gate = Gate("signatures", f"{contract.SERVING_DEFAULT!r} and the contract's tensor names")
    if contract.SERVING_DEFAULT not in fresh.signatures:
        names = ", ".join(sorted(fresh.signatures)) or "none"
        return gate.failed(f"signatures: {names}")
    for name, (inputs, outputs) in _CONTRACT.items():
        if name not in fresh.signatures:
            continue
        wrong = sorted(_inputs(inputs, subject) ^ set(fresh.signatures[name].inputs))
        if wrong:
            return gate.failed(f"{name}: input {wrong[0]!r} is missing or unknown")
        missing = sorted(outputs - set(fresh.signatures[name].outputs))
        if missing:
            return gate.failed(f"{name}: no output {missing[0]!r}")
    lost = sorted(set(subject.manifest.signatures) - set(fresh.signatures))
    if lost:
        return gate.failed(f"{lost[0]!r} is in the manifest but not in the SavedModel")
    return gate.result(True, f"{len(fresh.signatures)} signatures")


def _inputs(inputs: set[str], subject: Subject) -> set[str]:
    """Return inputs of the contract, those of a tower from elsewhere instead of the user id."""
    retrieval = subject.manifest.retrieval or RetrievalInterface()
    if contract.USER_ID not in inputs:
        return inputs
    return (inputs - {contract.USER_ID}) | {retrieval.query, *retrieval.others}


def _callable(subject: Subject, fresh: FreshServable) -> GateResult:
    gate = Gate("signatures", "a callable signature")
    if not fresh.signatures:
        return gate.failed(
            "no signature can be called; call the index once before saving it, or pass "
            "signatures= to tf.saved_model.save"
        )
    retrieval = find_retrieval(subject.manifest, fresh.signatures)
    if isinstance(retrieval, RetrievalInterface):
        return gate.result(True, str(retrieval))
    names = ", ".join(sorted(fresh.signatures))
    why = f"{names}: only for `predict`, because {retrieval}"
    if "could be any of" in retrieval or "several signatures" in retrieval:
        why += "; choose with --signature, --input, --ids or --scores"
    return gate.result(True, why)


def golden(
    subject: Subject,
    answers: Sequence[Answer],
    sampled: Sequence[Answer] = (),
    *,
    recorded: Sequence[Answer] = (),
) -> GateResult:
    """Check that known queries get the same answers after loading, and that numbers are numbers.

    Args:
        subject: The version.
        answers: Answers to its known queries.
        sampled: Answers to other queries of `serving_default`.
        recorded: Answers to `subject.recorded`.
    """
    before = "saving" if subject.manifest.exported else "publication"
    gate = Gate("golden", f"the answers from before {before}, to 1e-5; no NaN")
    if not subject.golden and not recorded:
        return gate.skipped(subject.note or _no_queries(subject))
    for query, answer in zip(subject.golden, answers, strict=True):
        wrong = answer if isinstance(answer, str) else compare(query, answer)
        wrong = wrong or _not_a_number(query, answer)
        if wrong is not None:
            return gate.failed(wrong)
    for query, answer in zip(subject.recorded, recorded, strict=True):
        wrong = answer if isinstance(answer, str) else _not_a_number(query, answer)
        if wrong is not None:
            return gate.failed(f"a recorded request: {wrong}")
    usual = GoldenQuery(signature=contract.SERVING_DEFAULT, inputs={}, outputs={})
    for answer in sampled:
        if (wrong := _not_a_number(usual, answer)) is not None:
            return gate.failed(wrong)
    odd = ", ".join(f"{count} with {what}" for what, count in _oddities(subject.golden).items())
    same = f"{len(answers)} of {len(answers)} answers the same"
    more = f"{len(recorded)} recorded requests answered" if recorded else ""
    measured = "; ".join(part for part in (same, odd, more, subject.note) if part)
    return gate.result(True, measured)


def _no_queries(subject: Subject) -> str:
    remedy = "" if subject.manifest.exported else "; `shortlist publish` records some"
    return f"the version has no known queries{remedy}"


def _oddities(queries: Sequence[GoldenQuery]) -> Counter[str]:
    """Count rankings that a user would wonder about."""
    counts: Counter[str] = Counter()
    for query in queries:
        rows, scores = (query.outputs.get(name) for name in (query.ids, query.scores))
        counts["no candidates"] += rows is not None and scores is not None and not any(rows)
    return +counts


def _not_a_number(query: GoldenQuery, answer: Answer) -> str | None:
    """Return where scores, embeddings or ratings are NaN or infinite; clients refuse NaN."""
    if isinstance(answer, str):
        return None
    foreign = query.ids != contract.CANDIDATE_IDS
    for name in (query.scores, contract.QUERY_EMBEDDING, contract.RATING):
        rows = answer.get(name, [])
        for row in rows if isinstance(rows, list) else []:
            values = row if isinstance(row, list) else [row]
            if name == query.scores:
                values = _without_padding(values, foreign=foreign)
            wrong = [item for item in values if isinstance(item, float) and not math.isfinite(item)]
            if wrong:
                asked = f" for {json.dumps(query.inputs)[:_SHOWN]}" if query.inputs else ""
                return f"{query.signature}: output {name!r} has the value {wrong[0]}{asked}"
    return None


def _without_padding(scores: list[float], *, foreign: bool) -> list[float]:
    """Return scores without those of missing candidates; TFRS' layer for ScaNN pads with NaN."""
    size = len(scores)
    while size and (
        scores[size - 1] == contract.PADDING_SCORE
        or (foreign and math.isnan(scores[size - 1]) and not math.isnan(scores[0]))
    ):
        size -= 1
    return scores[:size]


def ops(
    subject: Subject, fresh: FreshServable, settings: GateSettings, *, installed_producer: int
) -> GateResult:
    """Check that the target server has the ops and reads the graph's format."""
    target = settings.target_producer or installed_producer
    custom = find_custom_ops(fresh.ops)
    of_scann = [op for op in custom if op.startswith(f"{SCANN_NAMESPACE}>")]
    server = settings.target
    if server is None:  # servables with ScaNN's ops are never for a stock server
        server = "embedded" if of_scann and settings.server.scann_problem() is None else "stock"
    unavailable = [op for op in custom if server != "embedded" or op not in of_scann]
    name = f"{'the embedded' if server == 'embedded' else 'a stock'} server"
    gate = Gate("ops", f"ops of {name} without files, graph format at most {target}")
    measured = f"{len(fresh.ops)} ops, {len(custom)} of them custom, format {fresh.producer}"
    if of_scann:
        measured += "; ScaNN needs the embedded server, or an image with its ops"
    if unavailable:
        return gate.failed(f"{measured}: {unavailable[0]!r} is not available")
    if fresh.file_ops:
        more = f" ({len(fresh.file_ops) - 1} more such uses)" if len(fresh.file_ops) > 1 else ""
        return gate.failed(
            f"{fresh.file_ops[0]}{more}; embedded servers need --allow_file_ops=true for it"
        )
    return gate.result(fresh.producer <= target, measured)


def recall(subject: Subject, answers: Sequence[Answer], settings: GateSettings) -> GateResult:
    """Check recall against brute force."""
    gate = Gate("recall", f"recall@10 >= {settings.min_recall:g}")
    probe = subject.probe
    if probe is None:
        return gate.skipped(subject.without("probe to measure it with"))
    rows = candidate_rows(answers)
    if isinstance(rows, str):
        return gate.failed(f"no answers for the probe's users: {rows}")
    shares = [
        len(set(exact) & set(row[: probe.k])) / len(exact)
        for exact, row in zip(probe.exact_ids, rows, strict=True)
    ]
    mean = sum(shares) / len(shares) if shares else 1.0
    return gate.result(
        mean >= settings.min_recall, f"recall@{probe.k} {mean:.4f} of {len(shares)} users"
    )


def corpus(subject: Subject, answers: Sequence[Answer], settings: GateSettings) -> GateResult:
    """Check the candidates, alone and compared with the live version's.

    Args:
        subject: The new version.
        answers: Its answer for an unknown user, if it has users.
        settings: Limits of the gates.
    """
    required = "no duplicates, no NaN, no zero-norm embeddings"
    required += ", an answer for unknown users" if answers else ""
    if subject.corpus is None:
        return Gate("corpus", required).skipped(subject.without("list of its candidates"))
    facts = subject.manifest.corpus or CorpusFacts()
    bad = {
        "duplicate ids": len(subject.corpus) - len(set(subject.corpus)),
        "NaN or infinite embeddings": facts.non_finite,
        "zero-norm embeddings": facts.zero_norm,
    }
    measured = f"{len(subject.corpus)} candidates, " + ", ".join(
        f"{count} {what}" for what, count in bad.items()
    )
    problem = _unknown_user_problem(answers[0]) if answers else None
    measured += f", unknown user: {problem or 'answered'}" if answers else ""
    passed = problem is None and not any(bad.values())
    before = subject.live.corpus if subject.live is not None else None
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


def _unknown_user_problem(answer: Answer) -> str | None:
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
