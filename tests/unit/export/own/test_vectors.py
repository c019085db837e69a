"""Vectors from files: every format gives the same table, and every fault names its row or id."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.export.data.config import DataError
from shortlist.export.own.vectors import VectorTable, check_zeros, read_vectors

IDS = ["007", "b", "c"]
EMBEDDINGS = np.array([[1, 2], [3, 4.5], [-1, 0]], np.float32)
GENRES = [["drama", "war"], [], ["comedy"]]
YEARS = [1990, 2001, 1977]


def lists(dtype: Any) -> pa.Array:
    return pa.array(list(EMBEDDINGS.astype(dtype)), pa.list_(pa.from_numpy_dtype(dtype)))


def parquet(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def of_parquet(folder: Path) -> Path:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(EMBEDDINGS.ravel()), 2)
    return parquet(
        folder / "v.parquet", candidate_id=IDS, embedding=vectors, genre=GENRES, year=YEARS
    )


def of_half_precision(folder: Path) -> Path:
    vectors = lists(np.float16)
    return parquet(
        folder / "h.parquet", candidate_id=IDS, embedding=vectors, genre=GENRES, year=YEARS
    )


def of_npz(folder: Path) -> Path:
    genres = np.array(["drama|war", "", "comedy"])
    arrays = {"candidate_id": np.array(IDS), "embedding": EMBEDDINGS, "genre": genres}
    np.savez(folder / "v.npz", allow_pickle=False, year=np.array(YEARS), **arrays)
    return folder / "v.npz"


def of_csv(folder: Path) -> Path:
    path = folder / "v.csv"
    path.write_text(
        "candidate_id,embedding,genre,year\n"
        '007,"[1.0, 2.0]",drama|war,1990\nb,3 4.5,,2001\nc,-1 0,comedy,1977\n'
    )
    return path


@pytest.mark.parametrize("write", [of_parquet, of_half_precision, of_npz, of_csv])
def test_all_formats_give_the_same_table(write: Any, tmp_path: Path) -> None:
    table = read_vectors(write(tmp_path), id_column="candidate_id")
    assert table.ids == tuple(IDS)
    assert table.embeddings.dtype == np.float32
    np.testing.assert_array_equal(table.embeddings, EMBEDDINGS)
    assert table.attributes["genre"].values == (("drama", "war"), (), ("comedy",))
    numbers = table.attributes["year"].numbers
    assert numbers is not None
    assert numbers.tolist() == YEARS


def test_titles_are_no_attribute(tmp_path: Path) -> None:
    path = parquet(tmp_path / "v.parquet", id=[1, 2, 3], v=lists(np.float32), title=["x", "y", "z"])
    table = read_vectors(path, id_column="id", embedding_column="v")
    assert table.ids == ("1", "2", "3")
    assert table.titles == ["x", "y", "z"]
    assert not table.attributes


def test_candidates_without_a_title_are_read(tmp_path: Path) -> None:
    """The report shows their ids."""
    path = parquet(tmp_path / "v.parquet", id=IDS, v=lists(np.float32), title=["x", None, "z"])
    assert read_vectors(path, id_column="id", embedding_column="v").titles == ["x", "", "z"]


def test_float64_is_said_to_be_rounded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = VectorTable(ids=IDS, embeddings=EMBEDDINGS.astype(np.float64))
    assert table.embeddings.dtype == np.float32
    assert "float64 embeddings are rounded to float32" in caplog.text


@pytest.mark.parametrize(
    ("ids", "embeddings", "message"),
    [
        (IDS, [[1, 2], [np.nan, 4], [np.inf, 1]], "embedding of 'b' is not finite .and 1 more"),
        (IDS, [[1, 2], [1e39, 4], [1, 1]], "embedding of 'b' is not finite"),
        (["a", "b", "a"], EMBEDDINGS, "rows 1 and 3 have the same id 'a'"),
        (["a", "", "c"], EMBEDDINGS, "the id of row 2 is empty"),
        (["a", "b"], EMBEDDINGS, "2 ids and 3 embeddings"),
        ([], np.zeros([0, 4]), r"got float64 \[0, 4\]"),
        (IDS, np.ones(3), r"got float64 \[3\]"),
    ],
)
def test_faulty_vectors_are_named(ids: list[str], embeddings: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        VectorTable(ids=ids, embeddings=np.asarray(embeddings))


def test_zeros_have_no_cosine() -> None:
    table = VectorTable(ids=IDS, embeddings=np.array([[1, 0], [0, 0], [0, 0]], np.float32))
    with pytest.raises(DataError, match=r"'b' is zero .and 1 more., which has no cosine"):
        check_zeros(table, "cosine", allowed=True)
    with pytest.raises(DataError, match="--allow corpus"):
        check_zeros(table, "dot", allowed=False)
    check_zeros(table, "dot", allowed=True)
    check_zeros(table, "l2", allowed=False)


def test_faulty_files_are_explained(tmp_path: Path) -> None:
    ragged = parquet(
        tmp_path / "ragged.parquet", candidate_id=["a", "b"], embedding=[[1.0, 2.0], [1.0]]
    )
    with pytest.raises(DataError, match="row 2, column 'embedding' has 1 values, the first row 2"):
        read_vectors(ragged, id_column="candidate_id")
    with pytest.raises(DataError, match=r"no column 'vector'.*--embedding-column"):
        read_vectors(ragged, id_column="candidate_id", embedding_column="vector")
    with pytest.raises(DataError, match="no column 'movie'"):
        read_vectors(ragged, id_column="movie")
    numbers = parquet(tmp_path / "numbers.parquet", candidate_id=["a"], embedding=[1.0])
    with pytest.raises(DataError, match="must hold one list of numbers per row"):
        read_vectors(numbers, id_column="candidate_id")
    words = tmp_path / "words.csv"
    words.write_text("candidate_id,embedding\na,1 two\n")
    with pytest.raises(DataError, match="line 2, column 'embedding' does not hold numbers"):
        read_vectors(words, id_column="candidate_id")
    uneven = tmp_path / "uneven.npz"
    np.savez(uneven, candidate_id=np.array(["a"]), embedding=EMBEDDINGS)
    with pytest.raises(DataError, match=r"candidate_id \[1\], embedding \[3, 2\]"):
        read_vectors(uneven, id_column="candidate_id")
    objects = tmp_path / "objects.npz"
    np.savez(objects, candidate_id=np.array(["a", None]), embedding=EMBEDDINGS[:2])
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(objects, id_column="candidate_id")
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "none.npz", id_column="candidate_id")
