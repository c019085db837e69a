"""Measures a published version by querying its SavedModel, whatever its index."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import PROTOCOLS, Protocol, TrainConfig
from shortlist.export.data.config import DataConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_facts
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split, configured_split
from shortlist.export.evaluation.evaluate import KS, Evaluation, evaluate_ranking
from shortlist.export.evaluation.ranking import Ranking, batches, places_in
from shortlist.serving.repository.version import read_manifest

__all__ = ["PublishedVersion", "evaluate_version", "split_of"]

log = logging.getLogger(__name__)

_MOST_USERS = 256  # per request
_SCORES_PER_REQUEST = 16_000_000  # in memory at once, with brute force


class PublishedVersion:
    """A version's folder with its manifest.

    Attributes:
        path: The folder.
        name: Model name and version, as in `retrieval_ivf/3`.
        trained_on: Its data.
    """

    def __init__(self, path: Path) -> None:
        """Read the manifest; the SavedModel is loaded later.

        Raises:
            RepositoryError: The manifest cannot be read.
            ValueError: The folder has no SavedModel or no manifest of an export.
        """
        self.path = path
        if not (path / "saved_model.pb").is_file():
            raise ValueError(
                f"no SavedModel in {path}; give the folder of a version, "
                "<repository>/<model>/<version>"
            )
        manifest = read_manifest(path)
        if manifest is None or manifest.dataset is None or "train" not in manifest.config:
            raise ValueError(
                f"{path} has no manifest of an export, so its split is not known; give a version "
                "that `shortlist export` published"
            )
        self.trained_on = manifest.dataset
        self.manifest = manifest
        self.name = f"{manifest.servable}/{manifest.version}"

    @property
    def config(self) -> TrainConfig:
        """The split that the version was trained on, and its protocol; the rest is the default."""
        stored = self.manifest.config["train"]
        names = ("split", "protocol", "held_out_fraction", "validation_fraction", "seed")
        return TrainConfig(**{name: stored[name] for name in names if name in stored})

    def data_source(self) -> DataConfig:
        """Return the data that the version was exported from, which still exists.

        Raises:
            ValueError: The manifest does not name it, or it does not exist any more.
        """
        if self.trained_on.source is None:
            raise ValueError(
                f"{self.name} does not record where its data {self.trained_on.name!r} came from; "
                "name it with --data"
            )
        source = DataConfig.from_json(self.trained_on.source)
        if source.path is not None and not source.path.exists():
            raise ValueError(
                f"{self.name} was exported from {source.path}, which does not exist here; name "
                "the same data with --data"
            )
        return source

    def check_data(self, dataset: Dataset) -> None:
        """Check that the version was trained on this data, whatever its name.

        Versions of earlier releases have no fingerprint of the data, so only sizes are compared.

        Raises:
            ValueError: Sizes or fingerprints differ.
        """
        facts = dataset_facts(dataset)
        for name in ("users", "candidates", "interactions", "fingerprint"):
            recorded, given = getattr(self.trained_on, name), getattr(facts, name)
            if recorded is None:
                log.warning(
                    "%s records no fingerprint of its data; only the sizes were compared", self.name
                )
            elif recorded != given:
                raise ValueError(
                    f"{self.name} was trained on other data: {name} {recorded}, and "
                    f"{dataset.name} has {given}; give the data that it was exported from"
                )


def split_of(version: PublishedVersion, dataset: Dataset) -> Split:
    """Return the split that the version was trained on, according to its manifest.

    Raises:
        ValueError: The version was trained on other data, or split by an earlier release in a
            way that this one does not reproduce.
    """
    version.check_data(dataset)
    config = version.config
    if version.trained_on.fingerprint is None and config.split != "leave_last_out":
        release = version.manifest.packages.get("shortlist", "unknown")
        raise ValueError(
            f"{version.name} was exported by an earlier release ({release}), which held out other "
            f"interactions with --split {config.split}: it would be judged on interactions that "
            "it was trained on; export it again, or evaluate it with that release"
        )
    return configured_split(dataset, config)


def evaluate_version(
    version: PublishedVersion,
    dataset: Dataset,
    split: Split,
    *,
    ks: Sequence[int] = KS,
    resamples: int = 0,
) -> Evaluation:
    """Metrics of the answers of `retrieve` for each user with held-out interactions.

    For brute force they equal those of the manifest. For an approximate index, candidates that
    the index misses count as misses, even if the model ranks them high.

    Args:
        version: Version to measure.
        dataset: Data that it was trained on.
        split: Split that it was trained on; see `split_of`.
        ks: Cut-offs; those larger than the corpus are ignored.
        resamples: Bootstrap resamples; 0 for no intervals.

    Raises:
        ValueError: Nothing is held out.
    """
    judged = split.held_out
    if not len(judged):
        raise ValueError(f"{dataset.name} has no held-out interactions to evaluate on")
    top_k = max(k for k in ks if k <= len(dataset.candidate_ids))
    users, owners = np.unique(dataset.user_positions[judged], return_inverse=True)
    candidates = dataset.candidate_positions[judged]
    retrieve = _Retrieve(version, dataset, split)
    top: dict[Protocol, npt.NDArray[np.int32]] = {
        protocol: retrieve(users, top_k, exclude_seen=protocol == "seen_excluded")
        for protocol in PROTOCOLS
    }
    ranking = Ranking(
        top_k=top_k,
        users=users,
        owners=owners,
        candidates=candidates,
        repeats=retrieve.seen.contain(users[owners], candidates),
        places={protocol: places_in(rows, owners, candidates) for protocol, rows in top.items()},
        top=top,
    )
    return evaluate_ranking(ranking, dataset, split, ks=ks, resamples=resamples)


class _Retrieve:
    """Calls the signature `retrieve` and translates ids back to positions."""

    def __init__(self, version: PublishedVersion, dataset: Dataset, split: Split) -> None:
        # A signature alone does not keep its variables alive.
        self._model = tf.saved_model.load(str(version.path))
        self._signature = self._model.signatures[contract.RETRIEVE]
        self._user_ids = np.array(dataset.user_ids, dtype=object)
        self._candidate_ids = np.array(dataset.candidate_ids, dtype=object)
        self._positions = {
            candidate_id.encode("utf-8"): position
            for position, candidate_id in enumerate(dataset.candidate_ids)
        }
        self._positions[contract.PADDING_CANDIDATE_ID.encode()] = -1
        self._keeps_seen = bool(version.manifest.config.get("keep_seen", True))
        self.seen = Pairs.by_user(dataset, split.fitted, distinct=True)

    def __call__(
        self, users: npt.NDArray[np.int32], k: int, *, exclude_seen: bool
    ) -> npt.NDArray[np.int32]:
        """Positions int32 `[len(users), k]`, best first; -1 after the last."""
        top = np.full((len(users), k), -1, np.int32)
        size = min(_MOST_USERS, _SCORES_PER_REQUEST // len(self._candidate_ids))
        for start, stop in batches(len(users), size):
            batch = users[start:stop]
            exclude = np.full((len(batch), 0), "", object)
            if exclude_seen and not self._keeps_seen:
                exclude = self._seen_ids(batch)
            nothing = tf.constant([], tf.string)
            answer = self._signature(
                **{
                    contract.USER_ID: tf.constant(self._user_ids[batch], tf.string),
                    contract.K: tf.constant(k, tf.int32),
                    contract.EXCLUDE: tf.constant(exclude, tf.string),
                    contract.EXCLUDE_SEEN: tf.constant(exclude_seen and self._keeps_seen),
                    contract.FILTER_ANY: nothing,
                    contract.FILTER_ALL: nothing,
                    contract.FILTER_MIN: nothing,
                    contract.FILTER_MAX: nothing,
                }
            )
            ids = answer[contract.CANDIDATE_IDS].numpy()
            top[start:stop, : ids.shape[1]] = [
                [self._positions[candidate_id] for candidate_id in row] for row in ids
            ]
        return top

    def _seen_ids(self, users: npt.NDArray[np.int32]) -> npt.NDArray[np.object_]:
        """Candidate ids that each user has seen, `[len(users), most per user]`, padded."""
        rows = [self._candidate_ids[self.seen.of(user)] for user in users.tolist()]
        exclude = np.full((len(rows), max(map(len, rows))), "", object)
        for row, ids in zip(exclude, rows, strict=True):
            row[: len(ids)] = ids
        return exclude
