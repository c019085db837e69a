"""Vectors by id: candidates to index, or users with their queries."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.config import SimilarityName
from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import FILTER_SEPARATOR, Attribute
from shortlist.export.data.reading.attributes import attribute_of
from shortlist.export.own.tables import OwnTable, read_own_table

__all__ = ["VectorTable", "attributes_of", "check_zeros", "read_vectors"]

log = logging.getLogger(__name__)

EMBEDDING_COLUMN = "embedding"


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorTable:
    """Vectors by id, in memory.

    Attributes:
        ids: `[n]` distinct ids, none empty.
        embeddings: `[n, d]` float16, float32 or float64, stored as float32.
        attributes: Attributes of the rows, for filters.
        titles: `[n]` names for the report, `""` for the id; None for all ids.
        name: Name in messages.
    """

    ids: Sequence[str]
    embeddings: npt.NDArray[Any]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    titles: Sequence[str] | None = None
    name: str = "the table of vectors"

    def __post_init__(self) -> None:
        vectors = np.asarray(self.embeddings)
        if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiu":
            raise DataError(
                f"{self.name}: embeddings must be numbers [n, d], got {vectors.dtype} "
                f"{list(vectors.shape)}"
            )
        ids = [str(key) for key in self.ids]
        if len(ids) != len(vectors):
            raise DataError(
                f"{self.name} has {len(ids)} ids and {len(vectors)} embeddings; give one of each "
                "per row"
            )
        self._check_ids(ids)
        if vectors.dtype == np.float64:
            log.warning("%s: float64 embeddings are rounded to float32", self.name)
        with np.errstate(over="ignore"):  # becomes infinite, which is an error
            vectors = np.ascontiguousarray(vectors, np.float32)
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise DataError(
                f"{self.name}: the embedding of {ids[wrong[0]]!r} is not finite"
                f"{_others(len(wrong))}; remove such rows, or correct them"
            )
        for name, attribute in self.attributes.items():
            values: Sequence[Any] | npt.NDArray[Any] | None = attribute.values
            values = attribute.numbers if values is None else values
            if not name or FILTER_SEPARATOR in name or values is None or len(values) != len(ids):
                raise DataError(
                    f"{self.name}: attribute {name!r} must have a value for each of the {len(ids)} "
                    f"ids, and a name without {FILTER_SEPARATOR!r}"
                )
        object.__setattr__(self, "ids", tuple(ids))
        object.__setattr__(self, "embeddings", vectors)

    def _check_ids(self, ids: Sequence[str]) -> None:
        first: dict[str, int] = {}
        for row, key in enumerate(ids):
            if not key:
                raise DataError(f"{self.name}: the id of row {row + 1} is empty; fill it in")
            if first.setdefault(key, row) != row:
                raise DataError(
                    f"{self.name}: rows {first[key] + 1} and {row + 1} have the same id {key!r}"
                    f"{_others(len(ids) - len(set(ids)))}; keep one row for each id"
                )

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.embeddings.shape[1])


def read_vectors(
    path: Path,
    *,
    id_column: str,
    embedding_column: str = EMBEDDING_COLUMN,
    title_column: str | None = None,
) -> VectorTable:
    """Read a Parquet, CSV or NPZ file of vectors; its other columns become attributes.

    Args:
        path: File.
        id_column: Column of the ids.
        embedding_column: Column with one list of numbers per row.
        title_column: Column of names for the report; None for `title`, if there is one.

    Raises:
        DataError: The file is missing or faulty; the message names the row or the id.
    """
    table = read_own_table(path, texts=[id_column])
    table.require(embedding_column, "name the one with the vectors with --embedding-column")
    vectors = table.vectors(embedding_column)
    return VectorTable(
        ids=table.texts(id_column),
        embeddings=vectors,
        name=str(path),
        **attributes_of(table, id_column, embedding_column, title_column=title_column),
    )


def attributes_of(table: OwnTable, *others: str, title_column: str | None = None) -> dict[str, Any]:
    """Return the attributes and titles of a file, but those of some columns."""
    title = title_column or ("title" if "title" in table.names else None)
    if title_column is not None:
        table.require(title_column, "name another with --title-column")
    return {
        "attributes": {
            name: attribute_of(table.table, name)
            for name in table.names
            if name not in (*others, title)
        },
        "titles": None if title is None else table.names_of_rows(title),
    }


def check_zeros(table: VectorTable, similarity: SimilarityName, *, allowed: bool) -> None:
    """Check that every vector has a direction if the similarity needs one.

    Args:
        table: Candidates.
        similarity: Similarity by which they are retrieved.
        allowed: Whether zeros are fine with `dot`, which ranks them by chance.

    Raises:
        DataError: The similarity is `cosine`, or `dot` without leave, and a vector is zero.
    """
    zero = np.flatnonzero(~table.embeddings.any(axis=1))
    if not len(zero) or similarity == "l2" or (similarity == "dot" and allowed):
        return
    why = "which has no cosine" if similarity == "cosine" else "which scores 0 for every query"
    remedy = "" if similarity == "cosine" else ", or index it anyway with --allow corpus"
    raise DataError(
        f"{table.name}: the embedding of {table.ids[zero[0]]!r} is zero{_others(len(zero))}, "
        f"{why}; remove such rows{remedy}"
    )


def _others(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
