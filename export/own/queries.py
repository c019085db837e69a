"""Queries of a model of one's own: from a tower, or a table of vectors by user id."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.config import DataError
from shortlist.export.own.tower import InputSignature, load_tower
from shortlist.export.own.vectors import EMBEDDING_COLUMN, VectorTable, read_vectors
from shortlist.export.servable.askers import Askers, KnownUsers
from shortlist.export.servable.contents import Inputs
from shortlist.export.towers.query_tower import Embed, QueryTower

__all__ = ["Columns", "QuerySource", "check_dimensions", "load_queries"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns in files of vectors, interactions and a candidate tower's inputs.

    Attributes:
        user: User ids in a table of queries; the input of a table is called `user_id` anyway.
        candidate: Candidate ids.
        embedding: Vectors.
        title: Names for the report; None for `title`, if there is one.
    """

    user: str = contract.USER_ID
    candidate: str = contract.CANDIDATE_ID
    embedding: str = EMBEDDING_COLUMN
    title: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class QuerySource:
    """Whatever turns the inputs of a request into a query.

    Attributes:
        name: Name in messages.
        inputs: Inputs of a request.
        embed: Returns the vectors of rows of inputs.
        askers: Makes the askers of a servable with a number of candidates.
        rows: All rows that it knows; None if only the caller can name some.
    """

    name: str
    inputs: Sequence[tf.TensorSpec]
    embed: Callable[[Inputs], npt.NDArray[np.float32]]
    askers: Callable[[int, Embed], Askers]
    rows: Inputs | None = None

    @property
    def by_user(self) -> bool:
        """Whether user ids are the only input, as in servables of an export."""
        return [(spec.name, spec.dtype) for spec in self.inputs] == [(contract.USER_ID, tf.string)]


@contextmanager
def load_queries(
    source: Any,
    columns: Columns,
    *,
    signature: str | None = None,
    output: str | None = None,
    input_signature: InputSignature | None = None,
) -> Iterator[QuerySource]:
    """Load a query tower, or a table of queries by user id.

    Args:
        source: A `VectorTable`, a file with one, or what `load_tower` takes.
        columns: Names of a file's columns.
        signature: Name of a SavedModel's signature.
        output: Name of its output.
        input_signature: Inputs of a module or callable.

    Raises:
        DataError: It cannot be loaded.
    """
    if isinstance(source, str | Path) and Path(source).expanduser().is_file():
        source = read_vectors(
            Path(source), id_column=columns.user, embedding_column=columns.embedding
        )
    if isinstance(source, VectorTable):
        yield _of_table(source)
        return
    with load_tower(
        source, signature=signature, output=output, input_signature=input_signature
    ) as tower:

        def askers(num_candidates: int, embed: Embed) -> Askers:
            return tower

        yield QuerySource(
            name=tower.name_in_messages, inputs=tower.inputs, embed=tower.embed, askers=askers
        )


def _of_table(table: VectorTable) -> QuerySource:
    """Users of a table; all others get the mean query."""
    unknown = table.embeddings.mean(axis=0)
    position_of = {user: position for position, user in enumerate(table.ids)}
    with_unknown = np.concatenate([table.embeddings, unknown[None]])

    def embed(rows: Inputs) -> npt.NDArray[np.float32]:
        users = rows[contract.USER_ID]
        positions = [position_of.get(user, -1) for user in users]
        vectors: npt.NDArray[np.float32] = with_unknown[positions]
        return vectors

    def askers(num_candidates: int, candidates: Embed) -> Askers:
        tower = QueryTower.of_table(
            table.ids, table.embeddings, unknown, num_candidates=num_candidates
        )
        return KnownUsers(tower, candidates)

    return QuerySource(
        name=table.name,
        inputs=KnownUsers.inputs,
        embed=embed,
        askers=askers,
        rows={contract.USER_ID: np.array(table.ids, dtype=object)},
    )


def check_dimensions(source: QuerySource, query_dimension: int, candidates: VectorTable) -> None:
    """Check that queries and candidates have the same length.

    Raises:
        DataError: They do not.
    """
    if query_dimension != candidates.dimension:
        raise DataError(
            f"queries of {source.name} have {query_dimension} dimensions, the candidates of "
            f"{candidates.name} {candidates.dimension}; use the two towers of one model"
        )
