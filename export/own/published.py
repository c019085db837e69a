"""Vectors of a published version, read from the version alone, and files of vectors."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from shortlist.clients import contract
from shortlist.clients.errors import ShortlistError
from shortlist.export._tf import scann_ops, tf
from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute
from shortlist.export.index.base import Effort
from shortlist.export.index.ivf import IvfIndex
from shortlist.export.index.previous import Leaves, PreviousIndex
from shortlist.export.own.vectors import EMBEDDING_COLUMN, VectorTable
from shortlist.export.servable.stored import StoredServable
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.version import Manifest, find_custom_ops, read_manifest

__all__ = [
    "PublishedVectors",
    "check_vector_file",
    "previous_index",
    "read_published",
    "write_vectors",
]

log = logging.getLogger(__name__)

_ROWS = 256  # users whose queries are computed at once
_SUFFIXES = (".parquet", ".npz")


@dataclass(frozen=True, kw_only=True)
class PublishedVectors:
    """Vectors of a version that Shortlist exported.

    Attributes:
        candidates: Embeddings of the candidates, exact whatever the index, and their attributes.
        similarity: Similarity that they were indexed for; those of `cosine` have length 1.
        users: Reads the queries of all known users, which loads the SavedModel.
    """

    candidates: VectorTable
    similarity: str
    users: Callable[[], VectorTable]


def read_published(path: Path) -> PublishedVectors:
    """Read the vectors of a version from its checkpoint.

    Raises:
        RepositoryError: The version was not exported by Shortlist, or its files are damaged.
    """
    manifest = read_manifest(path) or Manifest()
    if not manifest.exported:
        raise RepositoryError(
            f"{path} was not exported by shortlist, so its vectors cannot be found; take them from "
            "the model that it was saved from"
        )
    try:
        stored = StoredServable.of_version(path)
        rows, ids = stored.index_rows(), stored.texts("_candidate_ids")[:-1]
        similarity = str(manifest.config.get("similarity", "dot"))
        if similarity == "l2":
            rows = rows[:, :-1] + stored.value("_similarity/_mean")
        attributes = stored.attributes(len(ids))
    except (tf.errors.OpError, KeyError) as exc:
        raise RepositoryError(
            f"{path} holds no vectors that this release can read ({exc}); publish it again"
        ) from exc
    return PublishedVectors(
        candidates=VectorTable(ids=ids, embeddings=rows, attributes=attributes, name=str(path)),
        similarity=similarity,
        users=lambda: _read_users(path, manifest, stored),
    )


def previous_index(path: Path) -> PreviousIndex | None:
    """Read what the index of a changed corpus takes from that of a version.

    Returns:
        Leaves and effort, or the effort alone if the version has no leaves that this release
        can read; None if it has no index with an effort.
    """
    manifest = read_manifest(path) or Manifest()
    entry = manifest.index
    effort = Effort(*(entry.get(name) for name in Effort._fields))
    if effort == Effort(None, None):
        return None
    divided = entry["kind"] == IvfIndex.index_name and manifest.shard is None
    return PreviousIndex(
        effort=effort,
        explored_leaves=entry.get("recall", {}).get("explored_leaves"),
        leaves=_read_leaves(path) if divided else None,
    )


def _read_leaves(path: Path) -> Leaves | None:
    try:
        stored = StoredServable.of_version(path)
        members = stored.value("_index/_rows/_members")
        group_size = len(members)
        if "_index/_leaf_numbers" in stored:
            group_size = stored.value("_index/_leaf_numbers").shape[1]
        return Leaves(
            members=members,
            group_size=group_size,
            num_candidates=len(stored.value("_candidate_ids")) - 1,
        )
    except (tf.errors.OpError, KeyError, ValueError) as exc:
        log.warning("%s has no leaves that this release can read: %s", path, exc)
        return None


def check_vector_file(path: Path) -> None:
    """Check that `write_vectors` can write a file.

    Raises:
        ShortlistError: The ending is unknown, or the folder is missing.
    """
    if path.suffix not in _SUFFIXES:
        raise ShortlistError(f"{path} must end in {' or '.join(_SUFFIXES)}; rename it")
    if not path.parent.is_dir():
        raise ShortlistError(f"no such folder: {path.parent}; create it")


def write_vectors(path: Path, table: VectorTable, *, id_column: str) -> None:
    """Write vectors and attributes into a Parquet or NPZ file, which `read_vectors` reads.

    Raises:
        ShortlistError: The file cannot be written.
    """
    try:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {
                **{name: _array(attribute) for name, attribute in table.attributes.items()},
                id_column: np.array(table.ids, dtype=str),
                EMBEDDING_COLUMN: table.embeddings,
            }
            np.savez(path, allow_pickle=False, **arrays)
            return
        flat = pa.array(table.embeddings.ravel())
        parts: dict[str, Any] = {
            id_column: pa.array(table.ids),
            EMBEDDING_COLUMN: pa.FixedSizeListArray.from_arrays(flat, table.dimension),
        }
        for name, attribute in table.attributes.items():
            parts.setdefault(name, _column(attribute))
        pyarrow.parquet.write_table(pa.table(parts), path)
    except OSError as exc:
        raise ShortlistError(f"cannot write {path}: {exc.strerror or exc}") from exc


def _column(attribute: Attribute) -> pa.Array:
    if attribute.numbers is not None:
        return pa.array(attribute.numbers)
    return pa.array(list(map(list, attribute.values or ())), pa.list_(pa.string()))


def _array(attribute: Attribute) -> npt.NDArray[Any]:
    if attribute.numbers is not None:
        return attribute.numbers
    return np.array(["|".join(values) for values in attribute.values or ()], dtype=str)


def _read_users(path: Path, manifest: Manifest, stored: StoredServable) -> VectorTable:
    """Ask `embed` for the query of every known user."""
    tables = [place for place in ("_askers/_tower/_ids", "_query_tower/_ids") if place in stored]
    if not tables or contract.EMBED not in manifest.signatures:
        inputs = manifest.signatures.get(contract.SERVING_DEFAULT, {}).get("inputs", {})
        raise DataError(
            f"{path} answers to {', '.join(inputs) or 'other inputs'} and has no list of its "
            "users; leave --users out"
        )
    users = stored.ids(tables[0])
    if find_custom_ops(manifest.ops or ()):
        scann_ops()  # registers the ops of the graph
    embed = tf.saved_model.load(str(path)).signatures[contract.EMBED]
    parts, known = [], []
    for start in range(0, len(users), _ROWS):
        answer = embed(user_id=tf.constant(users[start : start + _ROWS]))
        parts.append(answer[contract.QUERY_EMBEDDING].numpy())
        known.append(answer[contract.KNOWN_USER].numpy())
    rows = np.flatnonzero(np.concatenate(known))
    return VectorTable(
        ids=[users[row] for row in rows],
        embeddings=np.concatenate(parts)[rows],
        name=f"the users of {path}",
    )
