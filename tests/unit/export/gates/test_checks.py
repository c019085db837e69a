"""What each gate passes and fails, on invented measurements."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import contract
from shortlist.clients.request_log.reading import LogFileError
from shortlist.clients.types import Signature, TensorSpec
from shortlist.export.gates import checks
from shortlist.export.gates.publication import _with_recorded
from shortlist.export.gates.questions import ByPurpose, questions, sort_answers
from shortlist.export.gates.record import Gate, GateError, require_passed
from shortlist.export.gates.run import run_gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving import installed
from shortlist.serving.errors import ModelServerError
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
from tests.support.packages import versions
from tests.unit.serving.request_log.examples import record, write_log

SETTINGS = GateSettings()
QUERY = GoldenQuery(
    signature=contract.SERVING_DEFAULT,
    inputs={contract.USER_ID: ["1"]},
    outputs={contract.CANDIDATE_IDS: [["a", "b", "c"]], contract.SCORES: [[3.0, 2.0, 1.0]]},
)
ANSWER: dict[str, Any] = dict(QUERY.outputs)
UNKNOWN = {**ANSWER, contract.KNOWN_USER: [False]}


def make_signature(inputs: Sequence[str], outputs: Sequence[str]) -> Signature:
    """Return a signature whose inputs are strings and whose outputs are matrices."""
    query = TensorSpec(dtype="DT_STRING", shape=(None,), tensor_name="")
    matrix = TensorSpec(dtype="DT_STRING", shape=(None, None), tensor_name="")
    scores = replace(matrix, dtype="DT_FLOAT")
    return Signature(
        inputs=dict.fromkeys(inputs, query),
        outputs={name: scores if "score" in name else matrix for name in outputs},
        method_name="",
    )


DEFAULT_SIGNATURE = {
    contract.SERVING_DEFAULT: make_signature(
        [contract.USER_ID], [contract.CANDIDATE_IDS, contract.SCORES]
    )
}


PROBE = Probe(k=2, user_ids=["1", "2"], exact_ids=[["a", "b"], ["b", "a"]])


def make_subject(path: Path, **fields: Any) -> Subject:
    path.mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_bytes(b"graph")
    values: dict[str, Any] = {
        "name": "retrieval_ivf",
        "version": 2,
        "path": path,
        "manifest": Manifest(files=checksums(path), signatures={"serving_default": {}}),
        "golden": (QUERY,),
        "probe": PROBE,
        "corpus": ["a", "b", "c"],
        "sample": None,
        "live": None,
    }
    return Subject(**{**values, **fields})


def make_fresh(**fields: Any) -> FreshServable:
    values: dict[str, Any] = {
        "ops": ("MatMul", "TopKV2"),
        "producer": 2288,
        "signatures": DEFAULT_SIGNATURE,
    }
    return FreshServable(**{**values, **fields})


def recall(subject: Subject, rows: list[list[str]]) -> GateResult:
    return checks.recall(subject, [{contract.CANDIDATE_IDS: rows}], SETTINGS)


def test_a_good_version_passes_everything(tmp_path: Path) -> None:
    subject, fresh = make_subject(tmp_path), make_fresh()
    results = [
        checks.complete(subject, fresh),
        checks.signatures(subject, fresh),
        checks.golden(subject, [ANSWER]),
        checks.ops(subject, fresh, SETTINGS, installed_producer=2288),
        recall(subject, [["a", "b", "c"], ["b", "a", "c"]]),
        checks.corpus(subject, [UNKNOWN], SETTINGS),
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
            {contract.SERVING_DEFAULT: make_signature(["input_1"], ["output_1"])},
            "serving_default: input 'input_1' is missing or unknown",
        ),
        (
            {contract.SERVING_DEFAULT: make_signature([contract.USER_ID], [contract.SCORES])},
            "serving_default: no output 'candidate_ids'",
        ),
        (
            {**DEFAULT_SIGNATURE, contract.SIMILAR: make_signature(["movie"], [])},
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


@pytest.mark.parametrize(
    ("signatures", "verdict", "measured"),
    [
        ({}, Verdict.FAILED, "no signature can be called; call the index once before saving it"),
        (
            {"serving_default": make_signature(["input_1"], ["output_2", "score"])},
            Verdict.PASSED,
            "serving_default: input_1 -> output_2, score",
        ),
        (
            {"rank": make_signature(["a"], ["score"])},
            Verdict.PASSED,
            "rank: only for `predict`, because the output with candidate ids of rank",
        ),
        (
            {"rank": make_signature(["a", "b"], ["ids", "score"])},
            Verdict.PASSED,
            "could be any of a, b; choose with --signature, --input, --ids or --scores",
        ),
    ],
)
def test_a_foreign_saved_model_needs_a_callable_signature(
    tmp_path: Path, signatures: dict[str, Signature], verdict: Verdict, measured: str
) -> None:
    subject = make_subject(tmp_path, manifest=Manifest())
    result = checks.signatures(subject, make_fresh(signatures=signatures))
    assert result.verdict is verdict
    assert measured in result.measured


def test_rankings_that_a_user_would_wonder_about_are_counted(tmp_path: Path) -> None:
    none = replace(QUERY, outputs={contract.CANDIDATE_IDS: [], contract.SCORES: []})
    subject = make_subject(tmp_path, golden=(QUERY, none, none), note="asked queries.jsonl")
    result = checks.golden(subject, [query.outputs for query in subject.golden])
    assert result.measured == ("3 of 3 answers the same; 2 with no candidates; asked queries.jsonl")


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("output", "values", "finite"),
    [
        (contract.SCORES, [[2.0, NAN, 1.0]], False),
        (contract.SCORES, [[2.0, 1.0, NAN]], False),
        (contract.SCORES, [[NAN, NAN, NAN]], False),
        (contract.SCORES, [[3.0, 2.0, 1.0], [INF, 1.0, 0.0]], False),
        (contract.SCORES, [[2.0, -INF, -INF]], True),  # padding
        (contract.SCORES, [[-INF, -INF, -INF]], True),  # no candidate is left
        (contract.QUERY_EMBEDDING, [[0.0, NAN]], False),
        (contract.QUERY_EMBEDDING, [[-INF, 0.0]], False),
        (contract.RATING, [1.0, NAN], False),
        (contract.RATING, [1.0, 5.0], True),
        ("loss", [NAN], True),
        # TFRS' layer for ScaNN pads with NaN.
        ("output_1", [[2.0, NAN, NAN]], True),
        ("output_1", [[NAN, NAN, NAN]], False),
        ("output_1", [[NAN, 1.0, NAN]], False),
    ],
)
def test_numbers_that_are_none_fail(
    tmp_path: Path, output: str, values: list[Any], finite: bool
) -> None:
    foreign: dict[str, Any] = (
        {"ids": "output_2", "scores": "output_1"} if output == "output_1" else {}
    )
    query = replace(QUERY, outputs={output: values}, **foreign)
    subject = make_subject(tmp_path, golden=(QUERY, query))
    result = checks.golden(subject, [ANSWER, query.outputs])
    assert result.verdict is (Verdict.PASSED if finite else Verdict.FAILED)
    assert finite or f"output {output!r} has the value" in result.measured


def test_sampled_users_count_too(tmp_path: Path) -> None:
    subject = make_subject(tmp_path)
    assert checks.golden(subject, [ANSWER], [ANSWER, "NOT_FOUND: x"]).verdict is Verdict.PASSED
    broken = {**ANSWER, contract.SCORES: [[NAN, NAN, NAN]]}
    result = checks.golden(subject, [ANSWER], [ANSWER, broken])
    assert result.measured == "serving_default: output 'scores' has the value nan"


def test_recorded_requests_must_be_answered(tmp_path: Path) -> None:
    subject = replace(make_subject(tmp_path), recorded=(QUERY, QUERY))
    fine = checks.golden(subject, [ANSWER], recorded=[ANSWER, ANSWER])
    assert fine.verdict is Verdict.PASSED
    assert "2 recorded requests answered" in str(fine.measured)
    failed = checks.golden(subject, [ANSWER], recorded=[ANSWER, "INVALID_ARGUMENT: no filter"])
    assert failed.verdict is Verdict.FAILED
    assert failed.measured == "a recorded request: INVALID_ARGUMENT: no filter"
    foreign = replace(subject, golden=(), manifest=Manifest())
    assert checks.golden(foreign, [], recorded=[ANSWER] * 2).verdict is Verdict.PASSED


def test_different_answers_after_loading_fail(tmp_path: Path) -> None:
    subject = make_subject(tmp_path)
    off = {**ANSWER, contract.SCORES: [[3.0, 2.0, 1.0001]]}
    result = checks.golden(subject, [off])
    assert result.verdict is Verdict.FAILED
    assert "expected 1.0, got 1.0001" in result.measured
    close = {**ANSWER, contract.SCORES: [[3.0, 2.0, 1.000001]]}
    assert checks.golden(subject, [close]).verdict is Verdict.PASSED
    broken = checks.golden(subject, ["FAILED_PRECONDITION: variable"])
    assert broken.measured == "FAILED_PRECONDITION: variable"


def test_ops_that_the_target_lacks_fail(tmp_path: Path) -> None:
    def gate(op: str = "Scann>ScannSearchBatched", **settings: Any) -> GateResult:
        fresh = make_fresh(ops=("MatMul", op))
        values = GateSettings(**settings)
        return checks.ops(make_subject(tmp_path), fresh, values, installed_producer=2288)

    assert gate().verdict is Verdict.PASSED
    assert "ScaNN needs the embedded server, or an image with its ops" in gate().measured
    assert gate(op="Other>Op").verdict is Verdict.FAILED
    assert gate(server=ServerKind.BINARY).verdict is Verdict.FAILED
    assert gate(target="stock-2.20").verdict is Verdict.FAILED
    assert gate(server=ServerKind.BINARY, target="embedded").verdict is Verdict.PASSED


def test_a_graph_that_is_newer_than_the_target_fails(tmp_path: Path) -> None:
    settings = GateSettings(target_producer=2000)
    result = checks.ops(make_subject(tmp_path), make_fresh(), settings, installed_producer=2288)
    assert result.verdict is Verdict.FAILED
    assert result.required.endswith("graph format at most 2000")


def test_low_recall_fails(tmp_path: Path) -> None:
    result = recall(make_subject(tmp_path), [["a", "x", "b"], ["x", "y", "a"]])
    assert result.verdict is Verdict.FAILED
    assert result.measured == "recall@2 0.2500 of 2 users"


def test_no_answers_for_the_probe_fail(tmp_path: Path) -> None:
    result = checks.recall(make_subject(tmp_path), ["INTERNAL: lookup"], SETTINGS)
    assert result.verdict is Verdict.FAILED
    assert result.measured == "no answers for the probe's users: INTERNAL: lookup"


@pytest.mark.parametrize(
    ("fields", "measured"),
    [
        ({"corpus": ["a", "b", "a"]}, "1 duplicate ids"),
        ({"manifest": Manifest(corpus=CorpusFacts(non_finite=3))}, "3 NaN or infinite"),
        ({"manifest": Manifest(corpus=CorpusFacts(zero_norm=2))}, "2 zero-norm"),
    ],
)
def test_a_bad_corpus_fails(tmp_path: Path, fields: dict[str, Any], measured: str) -> None:
    result = checks.corpus(make_subject(tmp_path, **fields), [UNKNOWN], SETTINGS)
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
    result = checks.corpus(make_subject(tmp_path), [answer], SETTINGS)
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
    assert checks.corpus(subject, [UNKNOWN], SETTINGS).verdict is verdict


def test_a_foreign_saved_model_skips_gates_that_it_has_no_data_for(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, manifest=Manifest(), golden=(), probe=None, corpus=None)
    assert checks.complete(subject, make_fresh()).verdict is Verdict.PASSED
    assert checks.golden(subject, []).verdict is Verdict.SKIPPED
    assert checks.recall(subject, [], SETTINGS).verdict is Verdict.SKIPPED
    assert checks.corpus(subject, [], SETTINGS).measured == "not exported by Shortlist"


def test_a_tower_from_elsewhere_is_asked_by_its_own_inputs(tmp_path: Path) -> None:
    interface = {"query": "user", "others": ["age"]}
    manifest = Manifest(signatures={"serving_default": {}}, interface=interface)
    probe = replace(PROBE, inputs={"user": ["1", "2"], "age": [30.0, 40.0]})
    subject = make_subject(tmp_path, manifest=manifest, probe=probe)
    own = make_signature(["user", "age"], [contract.CANDIDATE_IDS, contract.SCORES])
    fresh = make_fresh(signatures={contract.SERVING_DEFAULT: own})
    assert checks.signatures(subject, fresh).verdict is Verdict.PASSED
    assert checks.signatures(subject, make_fresh()).measured == (
        "serving_default: input 'age' is missing or unknown"
    )
    asked = questions(subject, ())
    assert [query.inputs for query in asked.probe] == [probe.inputs]
    assert not asked.unknown_user
    result = checks.corpus(subject, [], SETTINGS)
    assert result.verdict is Verdict.PASSED
    assert "unknown" not in f"{result.measured} {result.required}"


def test_a_corpus_without_a_probe_is_still_asked_for_an_unknown_user(tmp_path: Path) -> None:
    asked = questions(make_subject(tmp_path, probe=None), ())
    assert (len(asked.golden), len(asked.unknown_user), len(asked.probe)) == (1, 1, 0)
    answers = sort_answers(asked, [ANSWER, UNKNOWN])
    assert answers.unknown_user == [UNKNOWN]


def test_answers_go_to_the_gates_that_asked(tmp_path: Path) -> None:
    asked = questions(make_subject(tmp_path), [QUERY] * 2)
    asked = replace(asked, recorded=[QUERY])
    assert len(asked.in_order()) == 6
    answers = sort_answers(asked, ["golden", "unknown", "probe", "recorded", "first", "second"])
    assert answers == ByPurpose(
        golden=["golden"],
        unknown_user=["unknown"],
        probe=["probe"],
        recorded=["recorded"],
        comparison=["first", "second"],
    )


def test_the_error_names_every_failed_gate_the_numbers_and_the_override() -> None:
    bad = Gate("quality", ">= 0.8").failed("0.3")
    other = replace(bad, gate="corpus")
    with pytest.raises(GateError) as error:
        require_passed({"retrieval_ivf": [bad]})
    assert str(error.value) == (
        "retrieval_ivf failed the gate 'quality': 0.3, required: >= 0.8; fix the model, or "
        "publish it anyway with --allow quality"
    )
    with pytest.raises(GateError) as error:
        require_passed({"retrieval_ivf": [bad, other], "retrieval_scann": [bad]})
    assert str(error.value).splitlines() == [
        "3 gates failed",
        "  retrieval_ivf failed the gate 'quality': 0.3, required: >= 0.8",
        "  retrieval_ivf failed the gate 'corpus': 0.3, required: >= 0.8",
        "  retrieval_scann failed the gate 'quality': 0.3, required: >= 0.8",
        "  fix the model, or publish it anyway with --allow quality --allow corpus",
    ]
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


def test_rankings_of_other_names_are_compared_with_ties_and_stored(tmp_path: Path) -> None:
    query = GoldenQuery(
        signature="recommend",
        inputs={"input_1": [42]},
        outputs={"output_1": [[2.0, 2.0, 1.0]], "output_2": [[7, 8, 9]]},
        ids="output_2",
        scores="output_1",
    )
    write_golden(tmp_path, [QUERY, query])
    assert read_golden(tmp_path) == (QUERY, query)
    stored = json.loads((tmp_path / contract.GOLDEN_FILE).read_text())["queries"]
    assert [sorted(entry.keys() - {"inputs", "outputs", "signature"}) for entry in stored] == [
        [],
        ["ids", "scores"],
    ]
    assert compare(query, {**query.outputs, "output_2": [[8, 7, 9]]}) is None
    assert compare(query, {**query.outputs, "output_2": [[9, 8, 7]]}) is not None


def test_gates_need_scann_for_a_servable_with_its_ops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "version", versions(tensorflow="2.20.0"))
    manifest = Manifest(files={}, signatures={}, ops=("Scann>ScannSearchBatched",))
    error = r"the gates cannot run retrieval_ivf: scann is not installed; .*'shortlist\[scann\]'"
    with pytest.raises(ModelServerError, match=error):
        run_gates([make_subject(tmp_path / "2", manifest=manifest)], SETTINGS)


def test_requests_to_the_model_come_before_those_to_its_other_indexes(tmp_path: Path) -> None:
    subject = make_subject(tmp_path / "version")
    own, other = (record({"user_id": [name]}, model=name) for name in (subject.name, "other"))
    both = _with_recorded(subject, write_log(tmp_path / "both", [other, own]))
    assert [query.inputs for query in both.recorded] == [{"user_id": [subject.name]}]
    without = _with_recorded(subject, write_log(tmp_path / "other", [other]))
    assert [query.inputs for query in without.recorded] == [{"user_id": ["other"]}]
    with pytest.raises(LogFileError, match="holds no records yet"):
        _with_recorded(subject, write_log(tmp_path / "empty", []))
    assert _with_recorded(subject, None) == subject
