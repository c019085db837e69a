"""The corpus after an update, and what is wrong with one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.update.changes import Changes, ChangesConfig, read_changes
from shortlist.export.update.corpus import NextCorpus, next_corpus
from shortlist.export.update.parent import Catalogue
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.removed import RemovedList

BEFORE = Catalogue(
    ids=["a", "b", "c"],
    titles=["", "Bee", ""],
    attributes={
        "price": Attribute(numbers=np.array([1.0, 2.0, np.nan])),
        "kind": Attribute(values=(("x",), ("x", "y"), ())),
    },
)


def changes(tmp_path: Path, **files: str) -> Changes:
    """Read changes from texts by option."""
    paths: dict[str, Any] = {}
    for option, text in files.items():
        paths[option] = tmp_path / f"{option}{'.csv' if ',' in text else '.txt'}"
        paths[option].write_text(text)
    interactions = tuple(str(paths.pop("interactions")) for _ in range("interactions" in paths))
    config = ChangesConfig(interactions=interactions, **paths)
    return read_changes(config, BEFORE.attributes)


def update(tmp_path: Path, barred: tuple[str, ...] = (), /, **files: str) -> NextCorpus:
    return next_corpus(BEFORE, changes(tmp_path, **files), barred)


def test_candidates_come_go_and_are_described_anew(tmp_path: Path) -> None:
    corpus = update(
        tmp_path,
        candidates="candidate_id,title,price,kind,colour\nd,Dee,4,z,red\nc,Sea,,y,\n",
        attributes="candidate_id,price\nc,7\n",
        remove="b\n",
    )
    assert corpus.catalogue.ids == ["a", "c", "d"]
    assert corpus.catalogue.titles == ["", "Sea", "Dee"]
    assert corpus.change.kept.tolist() == [0, 2]
    assert (corpus.change.added, corpus.described) == (1, 1)
    assert corpus.catalogue.attributes["price"].numbers is not None
    np.testing.assert_array_equal(corpus.catalogue.attributes["price"].numbers, [1, 7, 4])
    assert corpus.catalogue.attributes["kind"].values == (("x",), ("y",), ("z",))
    assert corpus.catalogue.attributes["colour"].values == ((), (), ("red",))


def test_what_is_so_already_is_no_change(tmp_path: Path) -> None:
    corpus = update(
        tmp_path,
        candidates="candidate_id,title,price,kind\nb,Bee,2,x|y\nc,,,\n",
        attributes="candidate_id,price\na,1\n",
    )
    assert corpus.described == 0
    assert not corpus.change.added


def test_what_was_removed_stays_out(tmp_path: Path) -> None:
    text = "candidate_id,price\nd,4\ne,5\n"
    corpus = update(tmp_path, ("d", "gone"), candidates=text, remove="gone\n")
    assert corpus.catalogue.ids == ["a", "b", "c", "e"]
    assert corpus.barred == ["d"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"remove": "q\nr\n"}, r"'q', which is to be removed, .* \(and 1 more\); correct the id"),
        ({"remove": "\n"}, "holds no ids; give one per line"),
        ({"remove": "a\nb\nc\n"}, "would remove all candidates"),
        ({"remove": "a\n", "attributes": "candidate_id,price\na,2\n"}, "decide for one"),
        ({"attributes": "candidate_id,price\nq,2\n"}, "'q' is not in the parent version"),
        ({"candidates": "candidate_id,price\nd,2\nd,3\n"}, "'d' occurs more than once"),
        ({"candidates": "candidate_id,price\nd,cheap\n"}, "'price' is a number .* and 'cheap'"),
        ({"candidates": "name,price\nd,2\n"}, "no column"),
    ],
)
def test_wrong_changes_get_one_clear_line(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        update(tmp_path, **files)


def test_removed_list_keeps_ids_until_they_are_allowed(tmp_path: Path) -> None:
    removed = RemovedList(tmp_path, "retrieval")
    assert removed.ids() == []
    removed.change(add=["b", "a", "b"])
    removed.change(add=["a", "c"])
    assert removed.ids() == ["b", "a", "c"]
    removed.change(allow=["a", "x"])
    assert removed.ids() == ["b", "c"]
    with pytest.raises(ZeroDivisionError), removed.changed(add=["d"], allow=["b"]):
        _ = 1 / (removed.ids() != ["c", "d"])
    assert removed.ids() == ["c", "b"]
    removed.path.write_text("{}\n")
    with pytest.raises(RepositoryError, match="restore it, because it keeps removed"):
        removed.ids()


def test_data_without_candidates_keeps_the_rest_in_place(small_dataset: Dataset) -> None:
    gone = small_dataset.candidate_ids[1]
    left = small_dataset.without({gone, "unknown"})
    assert left.candidate_ids == tuple(key for key in small_dataset.candidate_ids if key != gone)
    names = np.array(small_dataset.candidate_ids)[small_dataset.candidate_positions]
    kept = names != gone
    np.testing.assert_array_equal(
        np.array(left.candidate_ids)[left.candidate_positions], names[kept]
    )
    np.testing.assert_array_equal(left.user_positions, small_dataset.user_positions[kept])
    for name, attribute in left.attributes.items():
        assert attribute.take(slice(1, 2)) == small_dataset.attributes[name].take(slice(2, 3))
    assert small_dataset.without(["unknown"]) is small_dataset
