"""The gates on real SavedModels, in a fresh process and a real server."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from shortlist.clients import contract
from shortlist.clients.cli.main import main
from shortlist.export.gates.publication import publish_saved_model, verify_version
from shortlist.export.gates.record import GATES, GateError
from shortlist.export.gates.settings import GateSettings
from shortlist.export.pipeline import ExportResult
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.object_store import ObjectStore
from shortlist.serving.repository.version import Verdict

# The first test creates the export that all share.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "retrieval_brute_force"


@pytest.fixture
def repository(small_export: ExportResult, tmp_path: Path) -> Path:
    """A repository with one good version, to damage."""
    shutil.copytree(small_export.servables[NAME], tmp_path / NAME / "1")
    return tmp_path


def test_an_export_carries_the_record_of_its_gates(small_export: ExportResult) -> None:
    for name, path in small_export.servables.items():
        manifest = json.loads((path / contract.MANIFEST_FILE).read_text())
        verdicts = {record["gate"]: record["verdict"] for record in manifest["gates"]}
        assert list(verdicts) == list(GATES)
        for gate in ("quality", "latency"):
            assert verdicts.pop(gate) == "skipped"  # there is no version before
        assert set(verdicts.values()) == {"passed"}, name


def test_the_next_version_is_compared_with_the_live_one_and_records_overridden_gates(
    repository: Path,
) -> None:
    changed = repository / "changed"
    shutil.copytree(repository / NAME / "1", changed)
    (changed / "extra").write_text("what is this")
    settings = GateSettings(allow=frozenset({"complete"}))
    published = publish_saved_model(changed, NAME, str(repository), settings)
    assert published.version == 2
    manifest = json.loads((Path(published.path) / contract.MANIFEST_FILE).read_text())
    assert manifest["gates"][0]["verdict"] == "allowed"
    assert manifest["gates"][0]["measured"] == "extra is missing, new or changed"
    by_gate = {result.gate: result.measured for result in published.results[NAME]}
    passed = [r.gate for r in published.results[NAME] if r.verdict is Verdict.PASSED]
    # A model of two epochs may have too few hits to be compared with.
    others = [gate for gate in GATES if gate not in ("complete", "quality")]
    assert [gate for gate in passed if gate != "quality"] == others
    assert "version 1" in by_gate["quality"]
    assert "interactions of " in by_gate["quality"]
    assert "compared with version 1 +0.0%, 0.0% lost" in by_gate["corpus"]
    assert "version 1: " in by_gate["latency"]


@pytest.mark.parametrize(
    ("damage", "gate"),
    [
        ("no variables", "complete"),
        ("truncated graph", "complete"),
        ("failing warm-up", "server"),
        ("other answers and low recall", "golden"),
    ],
)
def test_no_broken_version_becomes_visible(repository: Path, damage: str, gate: str) -> None:
    broken = repository / "broken"
    shutil.copytree(repository / NAME / "1", broken)
    manifest = broken / contract.MANIFEST_FILE
    match damage:
        case "no variables":
            shutil.rmtree(broken / "variables")
        case "truncated graph":
            graph = broken / "saved_model.pb"
            graph.write_bytes(graph.read_bytes()[:-200])
        case "failing warm-up":
            (broken / contract.WARMUP_FILE).write_bytes(b"no record at all")
        case _:
            golden = broken / contract.GOLDEN_FILE
            stored = json.loads(golden.read_text())
            stored["queries"][0]["outputs"][contract.SCORES][0][0] += 1.0
            golden.write_text(json.dumps(stored))
            probe = broken / contract.PROBE_FILE
            stored = json.loads(probe.read_text())
            stored["exact_ids"] = [["nobody"] * 10 for _ in stored["exact_ids"]]
            probe.write_text(json.dumps(stored))
    # Damage that the checksums do not show.
    values = json.loads(manifest.read_text())
    del values["files"]
    manifest.write_text(json.dumps(values))
    with pytest.raises(GateError, match=f"failed the gate '{gate}'") as caught:
        publish_saved_model(broken, NAME, str(repository), GateSettings())
    verdicts = {result.gate: result.verdict for result in caught.value.results[NAME]}
    assert "recall" not in damage or verdicts["recall"] is Verdict.FAILED
    assert ModelRepository(repository).versions(NAME) == [1]
    assert not list((repository / NAME).glob(".publishing-*"))


def test_a_store_that_cannot_rename_gets_versions_that_passed(repository: Path) -> None:
    store = ObjectStore(f"memory://{repository.name}/models")
    store.publish(NAME, store.claim(NAME), repository / NAME / "1")
    published = publish_saved_model(repository / NAME / "1", NAME, store.url, GateSettings())
    assert published.version == 2
    assert store.versions(NAME) == [1, 2]
    assert "interactions of " in str(published.results[NAME])
    (repository / NAME / "1" / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(GateError, match="failed the gate 'complete'"):
        publish_saved_model(repository / NAME / "1", NAME, store.url, GateSettings())
    assert store.versions(NAME) == [1, 2]
    fsspec.filesystem("memory").store.clear()


def test_verify_names_the_broken_file_in_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = repository / NAME / "1"
    with (version / "saved_model.pb").open("ab") as stream:
        stream.write(b" ")
    assert main(["verify", str(version)]) == 1
    captured = capsys.readouterr()
    assert "complete   FAILED   saved_model.pb is missing, new or changed" in captured.out
    assert captured.err.startswith(f"shortlist: error: {NAME} failed the gate 'complete'")
    assert verify_version(version, GateSettings())[NAME][1].verdict is Verdict.SKIPPED
    assert main(["verify", f"{NAME}/1", "--repository", str(repository)]) == 1
    assert capsys.readouterr().out == captured.out


def test_verify_needs_a_version_of_a_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "is not a version of a model repository" in capsys.readouterr().err
