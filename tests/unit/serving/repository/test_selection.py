"""Which servables go to which kind of server."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.selection import find_servables, select

NO_OPS = "a stock server does not have it; the embedded server does (--server embedded)"
SCANN_OPS = ["MatMul", "Scann>ScannSearchBatched", "Scann>TensorsToScann"]


def publish(root: Path, name: str, *, ops: Sequence[str] | None, graph: bytes = b"") -> None:
    with ModelRepository(root).publisher([name]) as publisher:
        staging = publisher.stage(name)
        (staging / "saved_model.pb").write_bytes(graph)
        if ops is not None:
            manifest = staging / contract.MANIFEST_FILE
            manifest.parent.mkdir()
            manifest.write_text(json.dumps({"ops": list(ops)}))
        publisher.publish()


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    publish(tmp_path, "retrieval_ivf", ops=["MatMul", "TopKV2"])
    publish(tmp_path, "retrieval_scann", ops=SCANN_OPS)
    return ModelRepository(tmp_path)


def test_newest_version_of_each_model_is_found(repository: ModelRepository) -> None:
    publish(repository.root, "retrieval_ivf", ops=["MatMul"])
    found = {servable.name: servable.version for servable in find_servables(repository)}
    assert found == {"retrieval_ivf": 2, "retrieval_scann": 1}


def test_a_server_with_the_ops_serves_all(repository: ModelRepository) -> None:
    selection = select(find_servables(repository), scann_problem=None)
    assert [servable.name for servable in selection.served] == ["retrieval_ivf", "retrieval_scann"]
    assert selection.left_out == ()


def test_a_stock_server_leaves_scann_out_and_says_why(repository: ModelRepository) -> None:
    selection = select(find_servables(repository), scann_problem=NO_OPS)
    assert [servable.name for servable in selection.served] == ["retrieval_ivf"]
    (left_out,) = selection.left_out
    assert left_out.name == "retrieval_scann"
    assert "'Scann>ScannSearchBatched'" in left_out.reason


def test_scann_is_recognised_in_a_saved_model_without_manifest(tmp_path: Path) -> None:
    publish(tmp_path, "foreign", ops=None, graph=b"\x12\x17Scann>ScannSearchBatched\x1a")
    (servable,) = find_servables(ModelRepository(tmp_path))
    assert servable.custom_ops == ("Scann>",)


def test_nothing_left_to_serve_names_the_server_that_can(tmp_path: Path) -> None:
    publish(tmp_path, "retrieval_scann", ops=SCANN_OPS)
    with pytest.raises(RepositoryError, match=r"--server embedded"):
        select(find_servables(ModelRepository(tmp_path)), scann_problem=NO_OPS)


def test_an_empty_repository_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"no servable in .*shortlist export --data sample"):
        find_servables(ModelRepository(tmp_path / "absent"))


def test_an_unknown_name_lists_the_known_ones(repository: ModelRepository) -> None:
    with pytest.raises(RepositoryError, match=r"'other'.*retrieval_ivf, retrieval_scann"):
        find_servables(repository, ["other"])
