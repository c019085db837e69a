"""What all servables of one model have in common, whatever their index."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.fingerprint import dataset_facts
from shortlist.export.data.split import Split
from shortlist.export.index.similarity import Similarity
from shortlist.export.servable.askers import Askers, KnownUsers
from shortlist.export.servable.self_test import (
    ProbeQueries,
    corpus_facts,
    sample_probe,
    sample_users,
)
from shortlist.export.towers.query_tower import Embed
from shortlist.export.towers.rating_head import RatingHead
from shortlist.export.towers.trained import TrainedModel
from shortlist.serving.repository.probe import Description, UserSample
from shortlist.serving.repository.version import DriftReference, Manifest

__all__ = [
    "Inputs",
    "ServableContents",
    "contents_of_training",
    "describe",
    "package_versions",
]

_PACKAGES = ("shortlist", "tf-keras", "tensorflow-recommenders", "scann", "numpy")

Inputs = Mapping[str, npt.NDArray[Any]]  # one row per query, by input name


@dataclass(frozen=True, kw_only=True, eq=False)
class ServableContents:
    """Parts of every servable of a model.

    Attributes:
        askers: Makes the askers of a servable from the embeddings of the candidates.
        asked: Some queries, at least one; the known answers are for the first ones.
        candidate_ids: `[n]`, distinct.
        index_rows: Float32 `[n, r]`, rows to index.
        attributes: Attributes of the candidates, for filters.
        probe: Queries whose exact answers are recorded.
        manifest: Entries of the manifest that do not depend on the index and the version.
        titles: `[n]` titles, empty for those that are the id; None for all.
        sample: Users with their interactions; None if they are not known.
        similarity: Similarity that the rows were made for; None for the inner product.
        rating_head: Predicts ratings; None for no signature `rate`.
        similar_queries: Queries of `similar`; None for the candidates' own embeddings.
        taste_dimension: First dimensions, in which near candidates are similar; None for all.
        training_state: Folder with the state of the training; None for none.
    """

    askers: Callable[[Embed], Askers]
    asked: Inputs
    candidate_ids: Sequence[str]
    index_rows: npt.NDArray[np.float32]
    attributes: Mapping[str, Attribute]
    probe: ProbeQueries
    manifest: Manifest
    titles: Sequence[str] | None = None
    sample: UserSample | None = None
    similarity: Similarity | None = None
    rating_head: RatingHead | None = None
    similar_queries: npt.NDArray[np.float32] | None = None
    taste_dimension: int | None = None
    training_state: Path | None = None


def contents_of_training(
    model: TrainedModel,
    dataset: Dataset,
    split: Split,
    config: ExportConfig,
    *,
    metrics: Mapping[str, Any],
    reference: DriftReference | None = None,
    warm_start: Mapping[str, Any] | None = None,
    training_state: Path | None = None,
) -> ServableContents:
    """Return the parts of the servables of a trained model."""
    query_tower = model.query_tower
    if not config.keep_seen:
        queries = model.embed_users(np.arange(len(dataset.user_ids)))
        query_tower = model.query_tower.without_events(dataset.user_ids, queries)
    probe = sample_probe(model, dataset.user_ids, seed=config.train.seed)
    return ServableContents(
        askers=partial(KnownUsers, query_tower),
        asked={contract.USER_ID: np.array(probe.user_ids, dtype=object)},
        candidate_ids=dataset.candidate_ids,
        index_rows=model.candidate_embeddings,
        attributes=dataset.attributes,
        titles=dataset.titles,
        probe=probe,
        sample=sample_users(dataset, split),
        rating_head=model.rating_head,
        similar_queries=model.similar_queries,
        taste_dimension=model.taste_dimension,
        training_state=training_state,
        manifest=Manifest(
            model=config.model,
            dataset=dataset_facts(dataset),
            metrics=metrics,
            config=config.as_json(split=split.method),
            features=model.features,
            settings=model.settings,
            epochs=tuple(map(asdict, model.records)),
            packages=package_versions(),
            corpus=corpus_facts(model.candidate_embeddings),
            reference=reference,
            parent=None if warm_start is None else warm_start["version"],
            warm_start=warm_start or {},
        ),
    )


def package_versions() -> dict[str, str]:
    """Return versions of the packages that affect an export."""
    versions = {"tensorflow": tf.__version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # ScaNN is optional
            versions[name] = package_version(name)
    return versions


def describe(
    candidate_ids: Sequence[str],
    titles: Sequence[str] | None,
    attributes: Mapping[str, Attribute],
) -> Iterator[Description]:
    """Yield what people read about each candidate; a title that is the id is left out."""
    for row, candidate_id in enumerate(candidate_ids):
        values: dict[str, float | Sequence[str]] = {}
        for name, attribute in attributes.items():
            if attribute.values is not None:
                values[name] = attribute.values[row]
            elif attribute.numbers is not None and np.isfinite(attribute.numbers[row]):
                values[name] = float(attribute.numbers[row])
        title = "" if titles is None or titles[row] == candidate_id else titles[row]
        yield Description(title=title, attributes=values)
