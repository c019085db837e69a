"""An update of an export: other candidates and events with the same towers."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.change import CorpusChange
from shortlist.export.data.dataset import Dataset
from shortlist.export.pipeline import ExportResult
from shortlist.export.towers.trained import embed_kept
from shortlist.export.update.changes import ChangesConfig
from shortlist.export.update.parent import Parent, read_parent
from shortlist.export.update.run import UpdateResult, run_update
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.reference import VersionReference, find_version
from shortlist.serving.repository.version import read_manifest

pytestmark = pytest.mark.slow

REMOVED = 4  # position of the candidate that is removed
NEW = "new, from events"
FILTERS = (contract.FILTER_ANY, contract.FILTER_ALL, contract.FILTER_MIN, contract.FILTER_MAX)


@pytest.fixture(scope="module")
def found(small_export: ExportResult, tmp_path_factory: pytest.TempPathFactory) -> VersionReference:
    root = tmp_path_factory.mktemp("models")
    for name in ("retrieval_brute_force", "retrieval_ivf"):  # the third one was deleted
        shutil.copytree(small_export.servables[name], root / name / "1")
    return find_version(str(root / "retrieval_ivf" / "1"))


@pytest.fixture(scope="module")
def parent(found: VersionReference) -> Parent:
    return read_parent(found)


@pytest.fixture(scope="module")
def updated(
    found: VersionReference, small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> UpdateResult:
    folder, ids = tmp_path_factory.mktemp("changes"), small_dataset.candidate_ids
    (folder / "new.csv").write_text(
        f'candidate_id,title,genres,like\n"{NEW}",,Drama,\nsimilar,S,Western,"{ids[7]}"\n'
    )
    (folder / "gone.txt").write_text(f"{ids[REMOVED]}\n")
    takers = small_dataset.user_ids[:3]
    rows = "".join(f'{user},"{NEW}",2000000000\n' for user in takers)
    (folder / "since.csv").write_text(f"user_id,candidate_id,timestamp\n{rows}")
    (folder / "forget.txt").write_text(f"{small_dataset.user_ids[-1]}\n")
    config = ChangesConfig(
        candidates=folder / "new.csv",
        remove=folder / "gone.txt",
        interactions=(str(folder / "since.csv"),),
        forget_users=folder / "forget.txt",
    )
    result = run_update(found, config)
    assert result is not None
    return result


def test_query_tower_is_that_of_the_parent(found: VersionReference, parent: Parent) -> None:
    count = len(parent.catalogue.ids)
    tower = parent.tower.on(CorpusChange(before=count, kept=np.arange(count)))
    queries = embed_kept(tower, parent.embeddings, np.arange(len(parent.tower.user_ids)))
    embed = tf.saved_model.load(str(found.path)).signatures[contract.EMBED]
    expected = embed(user_id=tf.constant(parent.tower.user_ids))[contract.QUERY_EMBEDDING]
    np.testing.assert_allclose(queries, expected.numpy(), atol=1e-5)


def test_manifest_names_parent_and_change(updated: UpdateResult) -> None:
    assert sorted(updated.servables) == ["retrieval_brute_force", "retrieval_ivf"]
    assert updated.sources == {"interactions": 1, "like": 1}
    for path in updated.servables.values():
        manifest = read_manifest(path)
        assert manifest is not None
        assert (manifest.parent, manifest.version) == (1, 2)
        assert manifest.update == updated.facts
        assert str(updated.facts) == ("2 candidates added, 1 removed, 3 events, 1 users forgotten")


def ask(path: Path, user: str, **options: Any) -> dict[str, Any]:
    """Ask `retrieve` for all candidates."""
    inputs: dict[str, Any] = {
        "user_id": tf.constant([user]),
        "k": tf.constant(200),
        "exclude": tf.zeros([1, 0], tf.string),
        "exclude_seen": tf.constant(False),
        **{name: tf.zeros([0], tf.string) for name in FILTERS},
        **options,
    }
    answer = tf.saved_model.load(str(path)).signatures[contract.RETRIEVE](**inputs)
    ids = [key.decode() for key in answer["candidate_ids"][0].numpy() if key]
    scores = dict(zip(ids, answer["scores"][0].numpy().tolist(), strict=False))
    return {"ids": ids, "scores": scores, "known": bool(answer["known_user"][0])}


@pytest.mark.parametrize("name", ["retrieval_brute_force", "retrieval_ivf"])
def test_answers_follow_the_change(
    updated: UpdateResult, found: VersionReference, small_dataset: Dataset, name: str
) -> None:
    path, ids = updated.servables[name], small_dataset.candidate_ids
    user, other = small_dataset.user_ids[0], small_dataset.user_ids[5]
    before = ask(found.repository.version_path(name, 1), other)
    after = ask(path, other)
    assert set(after["ids"]) == {*before["ids"], NEW, "similar"} - {ids[REMOVED]}
    # Those who took the new candidate are asked for it least of all: they have it.
    seen = ask(path, user, exclude_seen=tf.constant(True))
    assert NEW in ask(path, user)["ids"]
    assert NEW not in seen["ids"]
    filtered = ask(path, other, filter_any=tf.constant(["genres=Western"]))
    assert "similar" in filtered["ids"]
    assert NEW not in filtered["ids"]


def test_forgotten_user_is_unknown_and_in_no_file(
    updated: UpdateResult, small_dataset: Dataset
) -> None:
    forgotten = small_dataset.user_ids[-1]
    for path in updated.servables.values():
        assert not ask(path, forgotten)["known"]
        assert ask(path, small_dataset.user_ids[0])["known"]
    users = read_parent(find_version(str(updated.servables["retrieval_ivf"]))).tower.user_ids
    assert forgotten not in users


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        (contract.TOWERS_FILE, None, "before updates were possible; export it once more"),
        (contract.CATALOGUE_FILE, None, "does not describe all candidates"),
        ("variables/variables.index", None, "cannot be read"),
        ("variables/variables.data-00000-of-00001", 100, "cannot be read"),
    ],
)
def test_version_without_what_an_update_needs_says_so(
    found: VersionReference, tmp_path: Path, file: str, size: int | None, message: str
) -> None:
    old = tmp_path / "retrieval_ivf" / "1"
    shutil.copytree(found.path, old)
    if size is None:
        (old / file).unlink()
    else:
        os.truncate(old / file, size)
    with pytest.raises(RepositoryError, match=message):
        read_parent(find_version(str(old)))
