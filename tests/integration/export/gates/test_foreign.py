"""SavedModels that Shortlist did not export: described, recorded, and served for real.

All models go through the gates together, so that one process loads them and one server serves them.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.clients.cli.main import main
from shortlist.clients.interface import NoInterfaceError, RetrievalInterface
from shortlist.clients.request_log.reading import LogFileError
from shortlist.export.gates.foreign import Choices, Description, describe
from shortlist.export.gates.run import run_gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import read_subject
from shortlist.serving.errors import RepositoryError
from shortlist.serving.installed import scann_problem
from shortlist.serving.repository.golden import read_golden
from shortlist.serving.repository.version import (
    GateResult,
    Manifest,
    Verdict,
    read_manifest,
    write_manifest,
)
from shortlist.serving.rollout.queries import known_queries
from tests.unit.serving.request_log.examples import answer, record, write_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCANN = scann_problem() is None
PLAIN = RetrievalInterface(query="input_1", ids="output_2", scores="output_1")
VOCABULARY = "from its vocabulary of 40, and an unknown one"
CHOICES = Choices(input="who", ids="titles")


@dataclass(frozen=True, kw_only=True)
class Published:
    """Versions with everything that publication adds, and their gates."""

    root: Path
    described: dict[str, Description]
    gates: dict[str, dict[str, GateResult]]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    from tests.support.plain_models import PLAIN_MODELS, write_plain_models

    root = tmp_path_factory.mktemp("plain")
    names = [name for name in PLAIN_MODELS if SCANN or name != "scann"]
    write_plain_models(root, names)

    def prepare(name: str) -> Description:
        choices = CHOICES if name == "ambiguous" else Choices()
        described = describe(root / name, name, 1, Manifest(), choices)
        write_manifest(root / name, described.manifest)
        return described

    with ThreadPoolExecutor(2) as pool:
        described = dict(zip(names, pool.map(prepare, names), strict=True))
    subjects = [read_subject(name, 1, root / name, live=None) for name in names]
    results = run_gates(subjects, GateSettings())
    gates = {name: {result.gate: result for result in results[name]} for name in names}
    return Published(root=root, described=described, gates=gates)


@pytest.mark.parametrize(
    ("name", "interface", "note"),
    [
        ("brute_force", PLAIN, f"asked input_1 {VOCABULARY}"),
        (
            "by_name",
            RetrievalInterface(ids="output_2", scores="output_1"),
            f"asked user_id {VOCABULARY}",
        ),
        ("integers", PLAIN, f"asked input_1 {VOCABULARY}"),
        pytest.param(
            "scann",
            PLAIN,
            f"asked input_1 {VOCABULARY}",
            marks=pytest.mark.skipif(not SCANN, reason="scann is not installed"),
        ),
        (
            "features",
            RetrievalInterface(ids="output_2", scores="output_1", others=("day",)),
            f"asked day=1, user_id {VOCABULARY}",
        ),
        (
            "ambiguous",
            RetrievalInterface(
                signature="recommend", query="who", ids="titles", others=("country",)
            ),
            f"asked country='1', who {VOCABULARY}",
        ),
        ("scalar", None, f"asked k=1, user {VOCABULARY}"),
        ("user_tower", None, VOCABULARY),
    ],
)
def test_every_callable_model_is_served(
    published: Published, name: str, interface: RetrievalInterface | None, note: str
) -> None:
    gates, described = published.gates[name], published.described[name]
    verdicts = {gate: str(result.verdict) for gate, result in gates.items()}
    assert verdicts == {
        **dict.fromkeys(("complete", "signatures", "golden", "ops", "server"), "passed"),
        **dict.fromkeys(("recall", "quality", "corpus", "latency"), "skipped"),
    }
    assert described.manifest.retrieval == interface
    assert described.note is not None
    assert described.note.endswith(note)
    if interface is None:
        assert "only for `predict`, because " in gates["signatures"].measured
    else:
        assert gates["signatures"].measured == str(interface)
    assert "warmed up, 5 known answers over both transports" in gates["server"].measured
    assert gates["corpus"].measured == "not exported by Shortlist"


def test_a_model_without_signature_is_refused_with_the_cure(published: Published) -> None:
    gates = published.gates["never_called"]
    assert gates["signatures"].verdict is Verdict.FAILED
    assert "call the index once before saving it" in gates["signatures"].measured


def test_known_answers_are_those_of_the_vocabulary(published: Published) -> None:
    golden = read_golden(published.root / "integers")
    assert [query.inputs for query in golden] == [
        {"input_1": [user]} for user in (1, 14, 27, 40, 41)
    ]
    (first,) = golden[0].outputs["output_2"]
    assert len(first) == 5
    assert all(1000 <= candidate < 1060 for candidate in first)


def test_rollouts_replay_what_is_known(published: Published) -> None:
    queries = known_queries(published.root / "features").by_user()
    assert queries[0] == {"user_ids": ["1"], "features": [{"day": 1}]}
    assert known_queries(published.root / "integers").users == ("1", "14", "27", "40", "41")
    with pytest.raises(RepositoryError, match=r"no signature of .*/scalar is known to retrieve"):
        known_queries(published.root / "scalar")


def test_versions_of_other_names_are_compared(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version, name in ((1, "brute_force"), (2, "by_name")):
        shutil.copytree(published.root / name, tmp_path / "m" / str(version))
    assert main(["diff", "m/1", "m/2", "--repository", str(tmp_path)]) == 0
    assert "overlap@10 1.0000 over 5 users, 100.0% with the same list" in capsys.readouterr().out


def copy(published: Published, name: str, folder: Path) -> Path:
    """Copy a model without what its publication added."""
    extra = shutil.ignore_patterns(Path(contract.MANIFEST_FILE).parts[0])
    shutil.copytree(published.root / name, folder, ignore=extra)
    return folder


def test_queries_of_a_file_are_recorded(published: Published, tmp_path: Path) -> None:
    path, file = copy(published, "features", tmp_path / "m"), tmp_path / "queries.jsonl"
    queries: list[dict[str, Any]] = [
        {"user_id": "7", "day": 3},
        {"user_id": ["8", "9"], "day": [0, 6]},
        {"user_id": "7", "day": 99},
    ]
    file.write_text("\n\n".join(map(json.dumps, queries)))
    described = describe(path, "m", 1, Manifest(), Choices(queries=file))
    assert [query.inputs for query in read_golden(path)] == [
        {"user_id": ["7"], "day": [3]},
        {"user_id": ["8", "9"], "day": [0, 6]},
    ]
    assert described.note is not None
    assert described.note.startswith(f'queries of {file}; it refuses {{"user_id": ["7"], "day"')
    files = described.manifest.files or {}
    assert contract.WARMUP_FILE in files
    assert contract.GOLDEN_FILE in files


def test_requests_of_a_log_are_recorded(published: Published, tmp_path: Path) -> None:
    path = copy(published, "features", tmp_path / "m")
    lists = answer([["a"]])
    asked: list[dict[str, Any]] = [
        {"user_id": ["7"], "day": np.array([3])},
        {"user_id": ["7"], "day": np.array([4])},
        {"user_id": ["8", "9"], "day": np.array([0, 6])},
    ]
    requests = [record(inputs, lists) for inputs in asked]
    log = write_log(tmp_path / "logs", [*requests, record({"x": ["?"]}, lists, signature="other")])
    described = describe(path, "m", 1, Manifest(), Choices(queries=log))
    inputs = [query.inputs for query in read_golden(path)]
    assert {str(one["user_id"]) for one in inputs} == {"['7']", "['8', '9']"}
    assert described.note == f"2 recorded requests of {log}"
    empty = write_log(tmp_path / "empty", [])
    with pytest.raises(LogFileError, match="holds no records yet"):
        describe(path, "m", 1, Manifest(), Choices(queries=empty))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "must hold 1 to 100 queries, got 0"),
        ("[1]", "line 1 of .* must hold the inputs of a query by name"),
        ("{", "line 1 of .* is not valid JSON"),
        ('{"user_id": "1"}', "line 1 of .*: input 'day' is missing; the signature takes day "),
    ],
)
def test_a_file_of_wrong_queries_is_refused(
    published: Published, tmp_path: Path, text: str, error: str
) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(text)
    path = copy(published, "features", tmp_path / "m")
    with pytest.raises(RepositoryError, match=error):
        describe(path, "m", 1, Manifest(), Choices(queries=file))


def test_refused_queries_leave_the_gate_without_known_answers(
    published: Published, tmp_path: Path
) -> None:
    path, file = copy(published, "features", tmp_path / "m"), tmp_path / "queries.jsonl"
    file.write_text('{"user_id": "7", "day": 99}')
    described = describe(path, "m", 1, Manifest(), Choices(queries=file))
    assert described.note is not None
    assert described.note.startswith('it refuses {"user_id": ["7"], "day": [99]}: ')
    assert described.note.endswith("give queries that it answers with --queries FILE")
    assert read_golden(path) == ()


def test_chosen_tensors_must_exist(published: Published, tmp_path: Path) -> None:
    path = copy(published, "ambiguous", tmp_path / "m")
    with pytest.raises(NoInterfaceError, match="'nobody'; there are: country, who"):
        describe(path, "m", 1, Manifest(), Choices(input="nobody"))


def test_what_a_published_version_says_about_itself_is_kept(
    published: Published, tmp_path: Path
) -> None:
    path = published.root / "ambiguous"
    manifest = read_manifest(path)
    assert manifest is not None
    assert describe(path, "m", 2, manifest, Choices()) == Description(manifest=manifest)
    exported = Manifest(signatures={"serving_default": {}})
    assert describe(path, "m", 2, exported, Choices()).manifest == exported
    with pytest.raises(RepositoryError, match="Shortlist exported this version"):
        describe(path, "m", 2, exported, CHOICES)
