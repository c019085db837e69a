"""What each gate passes and fails, on invented measurements."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import contract
from shortlist.export.gates import checks
from shortlist.export.gates.record import Gate, GateError, require_passed
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving.repository.golden import GoldenQuery, compare, read_golden, write_golden
from shortlist.serving.repository.probe import Probe, read_corpus, write_corpus
from shortlist.serving.repository.version import (
    CorpusFacts,
    GateResult,
    Manifest,
    Verdict,
    checksums,
)
from shortlist.serving.servers.check import FreshServable
from shortlist.serving.servers.kinds import ServerKind

SETTINGS = GateSettings()
QUERY = GoldenQuery(
    signature=contract.SERVING_DEFAULT,
    inputs={contract.USER_ID: ["1"]},
    outputs={contract.CANDIDATE_IDS: [["a", "b", "c"]], contract.SCORES: [[3.0, 2.0, 1.0]]},
)
ANSWER: dict[str, Any] = dict(QUERY.outputs)
UNKNOWN = {**ANSWER, contract.KNOWN_USER: [False]}
DEFAULT_SIGNATURE = {
    contract.SERVING_DEFAULT: {
        "inputs": [contract.USER_ID],
        "outputs": [contract.CANDIDATE_IDS, contract.SCORES],
    }
}


def make_probe(held_out: int = 2) -> Probe:
    return Probe(
        k=2,
        user_ids=["1", "2"],
        exact_ids=[["a", "b"], ["b", "a"]],
        held_out_user_ids=["1"] * held_out,
        held_out_candidate_ids=["a"] * held_out,
    )


def make_subject(path: Path, **fields: Any) -> Subject:
    path.mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_bytes(b"graph")
    values: dict[str, Any] = {
        "name": "retrieval_ivf",
        "version": 2,
        "path": path,
        "manifest": Manifest(files=checksums(path)),
        "golden": (QUERY,),
        "probe": make_probe(),
        "corpus": ["a", "b", "c"],
        "live": None,
    }
    return Subject(**{**values, **fields})


def make_fresh(rows: list[list[str]] | None = None, **fields: Any) -> FreshServable:
    rows = rows or [["a", "b", "c"], ["b", "a", "c"], ["a", "c", "b"], ["a", "b", "c"]]
    values: dict[str, Any] = {
        "ops": ("MatMul", "TopKV2"),
        "producer": 2288,
        "signatures": DEFAULT_SIGNATURE,
        "answers": (ANSWER, UNKNOWN, {contract.CANDIDATE_IDS: rows}),
    }
    return FreshServable(**{**values, **fields})


def quality(subject: Subject, fresh: FreshServable, live: FreshServable | None) -> GateResult:
    return checks.quality(subject, fresh, live, SETTINGS)


def test_a_good_version_passes_everything(tmp_path: Path) -> None:
    subject, fresh = make_subject(tmp_path), make_fresh()
    results = [
        checks.complete(subject, fresh),
        checks.signatures(subject, fresh),
        checks.golden(subject, fresh),
        checks.ops(subject, fresh, SETTINGS, installed_producer=2288),
        quality(subject, fresh, None),
        checks.corpus(subject, fresh, SETTINGS),
    ]
    assert [result.verdict for result in results] == [Verdict.PASSED] * 6
    require_passed({"retrieval_ivf": results})


@pytest.mark.parametrize("damage", ["changed", "missing", "new"])
def test_files_that_are_not_as_recorded_are_named(tmp_path: Path, damage: str) -> None:
    subject = make_subject(tmp_path / "2")
    file = subject.path / "saved_model.pb"
    match damage:
        case "changed":
            file.write_bytes(b"grasp")
        case "missing":
            file.unlink()
        case _:
            file = subject.path / "extra"
            file.touch()
    result = checks.complete(subject, make_fresh())
    assert result.verdict is Verdict.FAILED
    assert result.measured == f"{file.name} is missing, new or changed"


def test_a_version_that_does_not_load_is_not_complete(tmp_path: Path) -> None:
    result = checks.complete(make_subject(tmp_path), FreshServable(error="NOT_FOUND: variables"))
    assert result.verdict is Verdict.FAILED
    assert result.measured == "does not load: NOT_FOUND: variables"


@pytest.mark.parametrize(
    ("signatures", "measured"),
    [
        ({}, "signatures: none"),
        (
            {contract.SERVING_DEFAULT: {"inputs": ["input_1"], "outputs": ["output_1"]}},
            "serving_default: input 'input_1' is missing or unknown",
        ),
        (
            {
                contract.SERVING_DEFAULT: {
                    "inputs": [contract.USER_ID],
                    "outputs": [contract.SCORES],
                }
            },
            "serving_default: no output 'candidate_ids'",
        ),
        (
            {**DEFAULT_SIGNATURE, contract.SIMILAR: {"inputs": ["movie"], "outputs": []}},
            "similar: input 'candidate_id' is missing or unknown",
        ),
    ],
)
def test_wrong_signatures_fail(tmp_path: Path, signatures: dict[str, Any], measured: str) -> None:
    result = checks.signatures(make_subject(tmp_path), make_fresh(signatures=signatures))
    assert (result.verdict, result.measured) == (Verdict.FAILED, measured)


def test_a_signature_that_the_manifest_promises_must_be_there(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, manifest=Manifest(signatures={"similar": {}}))
    result = checks.signatures(subject, make_fresh())
    assert result.measured == "'similar' is in the manifest but not in the SavedModel"


def test_different_answers_after_loading_fail(tmp_path: Path) -> None:
    subject = make_subject(tmp_path)
    off = {**ANSWER, contract.SCORES: [[3.0, 2.0, 1.0001]]}
    result = checks.golden(subject, make_fresh(answers=(off, UNKNOWN)))
    assert result.verdict is Verdict.FAILED
    assert "expected 1.0, got 1.0001" in result.measured
    close = {**ANSWER, contract.SCORES: [[3.0, 2.0, 1.000001]]}
    assert checks.golden(subject, make_fresh(answers=(close,))).verdict is Verdict.PASSED
    broken = checks.golden(subject, make_fresh(answers=("FAILED_PRECONDITION: variable",)))
    assert broken.measured == "FAILED_PRECONDITION: variable"


def test_ops_that_the_target_lacks_fail(tmp_path: Path) -> None:
    fresh = make_fresh(ops=("MatMul", "Scann>ScannSearchBatched"))

    def verdict(name: str, settings: GateSettings = SETTINGS) -> str:
        subject = make_subject(tmp_path, name=name)
        return checks.ops(subject, fresh, settings, installed_producer=2288).verdict

    assert verdict("retrieval_ivf") is Verdict.FAILED
    assert verdict("retrieval_scann") is Verdict.PASSED
    assert verdict("retrieval_scann", GateSettings(server=ServerKind.BINARY)) is Verdict.FAILED


def test_a_graph_that_is_newer_than_the_target_fails(tmp_path: Path) -> None:
    settings = GateSettings(target_producer=2000)
    result = checks.ops(make_subject(tmp_path), make_fresh(), settings, installed_producer=2288)
    assert result.verdict is Verdict.FAILED
    assert result.required.endswith("graph format at most 2000")


def test_low_recall_fails(tmp_path: Path) -> None:
    rows = [["a", "x", "b"], ["x", "y", "a"], ["a"], ["a"]]
    result = quality(make_subject(tmp_path), make_fresh(rows), None)
    assert result.verdict is Verdict.FAILED
    assert result.measured.startswith("recall@2 0.2500")


def test_a_hit_rate_far_below_the_live_version_fails(tmp_path: Path) -> None:
    count = 400
    subject = make_subject(
        tmp_path, probe=make_probe(count), live=Live(version=1, path=tmp_path / "1")
    )
    own = [["a", "b"], ["b", "a"]]
    live = make_fresh(answers=({contract.CANDIDATE_IDS: own + [["a", "b"]] * count},))

    def verdict(hits: int) -> str:
        rows = own + [["a", "b"]] * hits + [["x", "y"]] * (count - hits)
        return quality(subject, make_fresh(rows), live).verdict

    assert verdict(count) is Verdict.PASSED
    assert verdict(count - 8) is Verdict.PASSED  # 2 % lower
    assert verdict(count - 40) is Verdict.FAILED


@pytest.mark.parametrize(
    ("fields", "measured"),
    [
        ({"corpus": ["a", "b", "a"]}, "1 duplicate ids"),
        ({"manifest": Manifest(corpus=CorpusFacts(non_finite=3))}, "3 NaN or infinite"),
        ({"manifest": Manifest(corpus=CorpusFacts(zero_norm=2))}, "2 zero-norm"),
    ],
)
def test_a_bad_corpus_fails(tmp_path: Path, fields: dict[str, Any], measured: str) -> None:
    result = checks.corpus(make_subject(tmp_path, **fields), make_fresh(), SETTINGS)
    assert result.verdict is Verdict.FAILED
    assert measured in result.measured


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("INTERNAL: lookup", "INTERNAL: lookup"),
        ({**UNKNOWN, contract.KNOWN_USER: [True]}, "treated as known"),
        ({**UNKNOWN, contract.CANDIDATE_IDS: [["", "", ""]]}, "no candidates"),
        ({**UNKNOWN, contract.SCORES: [[float("nan")] * 3]}, "scores are not finite"),
    ],
)
def test_a_bad_answer_for_an_unknown_user_fails(tmp_path: Path, answer: Any, problem: str) -> None:
    result = checks.corpus(make_subject(tmp_path), make_fresh(answers=(ANSWER, answer)), SETTINGS)
    assert result.verdict is Verdict.FAILED
    assert problem in result.measured


@pytest.mark.parametrize(
    ("before", "verdict"),
    [
        (["a", "b", "c"], Verdict.PASSED),
        (["a", "b"], Verdict.PASSED),  # half as many again
        (["a"], Verdict.FAILED),  # three times as many
        (["a", "b", "c", "d"], Verdict.FAILED),  # a quarter is lost
    ],
)
def test_a_corpus_unlike_the_live_one_fails(
    tmp_path: Path, before: list[str], verdict: Verdict
) -> None:
    write_corpus(tmp_path / "1", before)
    assert read_corpus(tmp_path / "1") == before
    subject = make_subject(tmp_path / "2", live=Live(version=1, path=tmp_path / "1"))
    assert checks.corpus(subject, make_fresh(), SETTINGS).verdict is verdict


def test_a_foreign_saved_model_skips_gates_that_it_has_no_data_for(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, manifest=Manifest(), golden=(), probe=None, corpus=None)
    fresh = make_fresh(answers=())
    assert checks.complete(subject, fresh).verdict is Verdict.PASSED
    assert checks.golden(subject, fresh).verdict is Verdict.SKIPPED
    assert quality(subject, fresh, None).verdict is Verdict.SKIPPED
    assert checks.corpus(subject, fresh, SETTINGS).verdict is Verdict.SKIPPED


def test_the_error_names_the_gate_the_numbers_and_the_override() -> None:
    bad = Gate("quality", ">= 0.8").failed("0.3")
    other = replace(bad, gate="corpus")
    with pytest.raises(GateError) as error:
        require_passed({"retrieval_ivf": [bad, other]})
    assert str(error.value) == (
        "retrieval_ivf failed the gate 'quality': 0.3, required: >= 0.8 and 1 more; fix the "
        "model, or publish it anyway with --allow quality"
    )
    require_passed({"m": [replace(bad, verdict=Verdict.ALLOWED)]})


def test_an_unknown_gate_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="unknown gate 'speed'; gates are complete, signatures"):
        GateSettings(allow=frozenset({"speed"}))


def test_known_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    query = replace(
        QUERY, outputs={**QUERY.outputs, "odd": [float("inf"), float("-inf"), float("nan")]}
    )
    write_golden(tmp_path, [query])
    (stored,) = read_golden(tmp_path)
    assert compare(stored, query.outputs) is None
    assert compare(query, stored.outputs) is None


def test_candidates_of_equal_scores_may_change_places() -> None:
    query = replace(
        QUERY,
        outputs={
            contract.CANDIDATE_IDS: [["a", "b", "c", "d", "e"]],
            contract.SCORES: [[3.0, 2.0, 2.0, 1.0, 1.0]],
        },
    )

    def wrong(ids: list[str]) -> str | None:
        return compare(query, {**query.outputs, contract.CANDIDATE_IDS: [ids]})

    assert wrong(["a", "c", "b", "d", "e"]) is None
    assert wrong(["a", "b", "c", "f", "e"]) is None  # a third candidate with the last score
    assert wrong(["b", "a", "c", "d", "e"]) is not None
    assert wrong(["a", "x", "c", "d", "e"]) is not None
