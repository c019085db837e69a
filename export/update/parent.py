"""The version that an update starts from, read from its own files alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import ServableConfig, SimilarityName
from shortlist.export.data.change import CorpusChange
from shortlist.export.data.dataset import Attribute
from shortlist.export.servable.signatures import TOWERS_FORMAT
from shortlist.export.servable.stored import StoredServable
from shortlist.export.towers.rating_head import LinearRatingHead
from shortlist.export.towers.stored.query_tower import StoredQueryTower
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import (
    Description,
    UserSample,
    read_corpus,
    read_descriptions,
    read_probe,
    read_user_sample,
)
from shortlist.serving.repository.reference import VersionReference
from shortlist.serving.repository.version import Manifest

__all__ = ["Catalogue", "Parent", "read_parent"]

_AGAIN = "export it once more with this release, then it can be updated"


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """What is known of candidates besides their embeddings.

    Attributes:
        ids: `[n]` distinct ids.
        titles: `[n]` titles; `""` for the id.
        attributes: Attributes for filters.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parent:
    """A version with everything that its successor keeps.

    Attributes:
        repository: Model repository.
        version: Version number.
        paths: Folders of its servables by name.
        manifest: Manifest of the first of them.
        config: Indexes and their settings; only those that the version still has.
        catalogue: Its candidates.
        embeddings: Float32 `[n, d]`, of the candidates.
        similarity: Measure of a query and a candidate.
        tower: Query tower.
        taste_dimension: First dimensions, in which near candidates are similar.
        similar_queries: `[n, taste_dimension]` queries of `similar`, or None.
        sample: Users with what the model was trained on, or None.
        probe_users: Users whose exact answers are recorded.
    """

    repository: ModelRepository
    version: int
    paths: Mapping[str, Path]
    manifest: Manifest
    config: ServableConfig
    catalogue: Catalogue
    embeddings: npt.NDArray[np.float32]
    similarity: SimilarityName
    tower: StoredQueryTower
    taste_dimension: int
    similar_queries: npt.NDArray[np.float32] | None
    sample: UserSample | None
    probe_users: Sequence[str]
    _stored: StoredServable
    _rating_head: Mapping[str, Any] | None

    def __str__(self) -> str:
        return f"version {self.version} of {', '.join(self.paths)}"

    def rating_head(self, tower: StoredQueryTower, change: CorpusChange) -> LinearRatingHead | None:
        """Return the rating head for the users of a tower and a changed corpus; None if none."""
        if self._rating_head is None:
            return None
        stored = self._stored.under("_rating_head")
        return LinearRatingHead.restored(stored, self._rating_head, tower.rows, change)


def read_parent(found: VersionReference) -> Parent:
    """Read the version that an update starts from.

    Raises:
        RepositoryError: It lacks what an update needs, or its files are damaged.
    """
    path = found.path
    manifest = found.repository.manifest(found.name, found.version) or Manifest()
    structure = _structure(path, manifest)
    config, paths = _servables(found, manifest)
    try:
        stored = StoredServable.of_version(path)
        embeddings = stored.corpus_rows()
        similarity = manifest.config.get("similarity", "dot")
        if similarity == "l2":
            embeddings = embeddings[:, :-1] + stored.value("_similarity/_mean")
        tower = StoredQueryTower.read(stored.under("_askers"), structure["query_tower"])
        similar = "_similar_queries" in stored
        queries = stored.value("_similar_queries") if similar else None
        catalogue = _catalogue(path, stored)
    except (tf.errors.OpError, KeyError) as exc:
        raise RepositoryError(f"{path} cannot be read ({exc}); {_AGAIN}") from exc
    if len(catalogue.ids) != len(embeddings):
        raise RepositoryError(
            f"{path} has {len(embeddings)} embeddings and {len(catalogue.ids)} candidate ids, so "
            f"it is damaged; {_AGAIN}"
        )
    probe = read_probe(path)
    return Parent(
        repository=found.repository,
        version=found.version,
        paths=paths,
        manifest=manifest,
        config=config,
        catalogue=catalogue,
        embeddings=embeddings,
        similarity=similarity,
        tower=tower,
        taste_dimension=structure["taste_dimension"],
        similar_queries=queries,
        sample=read_user_sample(path),
        probe_users=() if probe is None else probe.user_ids,
        _stored=stored,
        _rating_head=structure["rating_head"],
    )


def _structure(path: Path, manifest: Manifest) -> dict[str, Any]:
    if not manifest.exported:
        raise RepositoryError(
            f"{path} was not exported by shortlist, so it cannot be updated; publish a new version "
            "of it with `shortlist publish`"
        )
    if manifest.interface:
        raise RepositoryError(
            f"the queries of {path} come from a tower of your own, so it cannot be updated; run "
            "`shortlist index` again with the tower and the new candidates, which takes as long"
        )
    file = path / contract.TOWERS_FILE
    try:
        structure: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if structure["format"] != TOWERS_FORMAT:
            raise RepositoryError(f"{file} was written by another release; {_AGAIN}")
    except FileNotFoundError:
        raise RepositoryError(
            f"{path} was published before updates were possible; {_AGAIN}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RepositoryError(f"{file} cannot be read ({exc}); {_AGAIN}") from exc
    head = structure["rating_head"]
    if head is not None and head["kind"] != LinearRatingHead.kind:
        raise RepositoryError(
            f"{path} rates by a {head['kind']}, which an update cannot carry over; export with "
            "the loss user_softmax, or without a rating weight"
        )
    return structure


def _servables(
    found: VersionReference, manifest: Manifest
) -> tuple[ServableConfig, dict[str, Path]]:
    """Return the servables of the export that are still there."""
    config = ServableConfig.of_manifest(manifest.config)
    repository, paths, indexes = found.repository, dict[str, Path](), list[str]()
    for index in config.indexes:
        names = [config.name(index, shard) for shard in config.parts()]
        present = [name for name in names if found.version in repository.versions(name)]
        if len(present) == len(names):
            indexes.append(index)
            paths |= {name: repository.version_path(name, found.version) for name in names}
    if not indexes:
        raise RepositoryError(
            f"not all shards of {found} are in {repository.root}; restore them, or export again"
        )
    return replace(config, indexes=tuple(indexes)), paths


def _catalogue(path: Path, stored: StoredServable) -> Catalogue:
    ids = read_corpus(path)
    if ids is None:
        raise RepositoryError(f"{path} has no list of its candidates; {_AGAIN}")
    kinds = {kind: stored.ids(f"_filter/_is_{kind}") for kind in ("categorical", "numeric")}
    descriptions = read_descriptions(path)
    if descriptions is None and not any(kinds.values()):
        descriptions = [Description() for _ in ids]
    if descriptions is None or len(descriptions) != len(ids):
        raise RepositoryError(f"{path} does not describe all candidates; {_AGAIN}")
    attributes: dict[str, Attribute] = {}
    for name in kinds["categorical"]:
        cells = [description.attributes.get(name, ()) for description in descriptions]
        values = tuple(tuple(map(str, cell)) if isinstance(cell, list) else () for cell in cells)
        attributes[name] = Attribute(values=values)
    for name in kinds["numeric"]:
        numbers = [description.attributes.get(name, np.nan) for description in descriptions]
        attributes[name] = Attribute(numbers=np.array(numbers, np.float64))
    return Catalogue(
        ids=ids, titles=[description.title for description in descriptions], attributes=attributes
    )
