"""Measures a published version by querying its SavedModel, whatever its index."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import PROTOCOLS, Protocol, TrainConfig
from shortlist.export.data.config import DataConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_facts
from shortlist.export.data.histories import Histories
from shortlist.export.data.questions import Questions, held_out_questions
from shortlist.export.data.split import Split, configured_split
from shortlist.export.evaluation.evaluate import KS, Evaluation, evaluate_ranking
from shortlist.export.evaluation.ranking import rank_lists
from shortlist.serving.repository.version import read_manifest

__all__ = ["PublishedVersion", "evaluate_version", "split_of"]

log = logging.getLogger(__name__)

_MOST_QUESTIONS = 256  # per request
_SCORES_PER_REQUEST = 16_000_000  # in memory at once, with brute force
_NOBODY = ""  # user id of requests without one


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
        named = {name: stored[name] for name in names if name in stored}
        return TrainConfig(**{"split": "random", **named})

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
        path = source.path
        # A file's name may look like a pattern, such as `clicks[1].csv`.
        if path is not None and not path.exists() and not glob.glob(str(path)):
            raise ValueError(
                f"{self.name} was exported from {path}, which does not exist here; name "
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
    """Metrics of the answers to the held-out questions.

    `retrieve` is asked, or `retrieve_by_query` if requests carry what the servable does not keep
    of the histories. For brute force the metrics equal those of the manifest, but that a servable
    does not know the time from its last kept event to a request's. For an approximate index,
    candidates that the index misses count as misses, even if the model ranks them high.

    Args:
        version: Version to measure.
        dataset: Data that it was trained on.
        split: Split that it was trained on; see `split_of`.
        ks: Cut-offs; those larger than the corpus are ignored.
        resamples: Bootstrap resamples; 0 for no intervals.

    Raises:
        ValueError: Nothing is held out, or the version takes no histories and the split asks with
            them.
    """
    questions = held_out_questions(dataset, split)
    retrieve = _Retrieve(version, dataset, split, questions)
    num_candidates = len(dataset.candidate_ids)
    top_k = max(k for k in ks if k <= num_candidates)

    def lists(rows: npt.NDArray[np.int64]) -> dict[Protocol, npt.NDArray[np.int32]]:
        return {
            protocol: retrieve(rows, top_k, exclude=protocol == "seen_excluded")
            for protocol in PROTOCOLS
        }

    size = min(_MOST_QUESTIONS, _SCORES_PER_REQUEST // num_candidates)
    ranking = rank_lists(lists, questions, top_k=top_k, batch_size=size)
    popularity = dataset.candidate_counts(split.fitted)
    return evaluate_ranking(ranking, popularity, ks=ks, resamples=resamples)


class _Retrieve:
    """Asks questions of a version and translates ids back to positions."""

    def __init__(
        self, version: PublishedVersion, dataset: Dataset, split: Split, questions: Questions
    ) -> None:
        # A signature alone does not keep its variables alive.
        self._model = tf.saved_model.load(str(version.path))
        name = contract.RETRIEVE_BY_QUERY if questions.as_served else contract.RETRIEVE
        if name not in self._model.signatures:
            raise ValueError(
                f"{version.name} has no signature {name!r}, so it cannot be asked as served: "
                f"--split {questions.method} puts histories into requests; export it again with "
                "this release, or evaluate it with its own"
            )
        self._signature = self._model.signatures[name]
        self._questions = questions
        self._user_ids = np.array([*dataset.user_ids, _NOBODY], dtype=object)
        self._candidate_ids = np.array(
            [*dataset.candidate_ids, contract.PADDING_CANDIDATE_ID], dtype=object
        )
        self._positions = {
            candidate_id.encode("utf-8"): position
            for position, candidate_id in enumerate(dataset.candidate_ids)
        }
        self._positions[contract.PADDING_CANDIDATE_ID.encode()] = -1
        self._keeps_seen = bool(version.manifest.config.get("keep_seen", True))
        self._num_kept = dataset.user_counts(split.fitted)

    def __call__(
        self, rows: npt.NDArray[np.int64], k: int, *, exclude: bool
    ) -> npt.NDArray[np.int32]:
        """Positions int32 `[len(rows), k]`, best first; -1 after the last."""
        asked = self._questions.take(rows)
        excluded = np.full((len(rows), 0), "", object)
        if exclude and not self._keeps_seen:
            excluded = self._ids(asked.histories)
        nothing = tf.constant([], tf.string)
        answer = self._signature(
            **(self._history(asked, exclude=exclude) if asked.as_served else {}),
            **{
                contract.USER_ID: tf.constant(self._user_ids[asked.askers], tf.string),
                contract.K: tf.constant(k, tf.int32),
                contract.EXCLUDE: tf.constant(excluded, tf.string),
                contract.EXCLUDE_SEEN: tf.constant(exclude and self._keeps_seen),
                contract.FILTER_ANY: nothing,
                contract.FILTER_ALL: nothing,
                contract.FILTER_MIN: nothing,
                contract.FILTER_MAX: nothing,
            },
        )
        ids = answer[contract.CANDIDATE_IDS].numpy()
        top = np.full((len(rows), k), -1, np.int32)
        top[:, : ids.shape[1]] = [
            [self._positions[candidate_id] for candidate_id in row] for row in ids
        ]
        return top

    def _history(self, asked: Questions, *, exclude: bool) -> dict[str, tf.Tensor]:
        """Return the inputs for what the users did after the events that the servable keeps."""
        after = asked.timelines.between(asked.starts + self._num_kept[asked.users], asked.stops)
        none = tf.zeros([len(asked), 0])
        ages = weights = none
        if after.events.weights is not None:
            weights = _padded(after, after.events.weights, 0)
        if after.times is not None:
            # Seconds before the last event: the times of the questions are not known.
            last = after.times[after.events.starts[1:][after.owners] - 1]
            ages = _padded(after, last - after.times, contract.UNKNOWN_AGE)
        return {
            contract.HISTORY: tf.constant(self._ids(after), tf.string),
            contract.HISTORY_AGE: tf.constant(ages, tf.float32),
            contract.HISTORY_WEIGHT: tf.constant(weights, tf.float32),
            contract.FEATURES: tf.zeros([len(asked), 0], tf.string),
            contract.EXCLUDE_HISTORY: tf.constant(exclude),
        }

    def _ids(self, histories: Histories) -> npt.NDArray[np.object_]:
        """Candidate ids of histories, `[len(histories), most events]`, padded."""
        ids: npt.NDArray[np.object_] = self._candidate_ids[
            _padded(histories, histories.events.columns, -1)
        ]
        return ids


def _padded(histories: Histories, values: npt.NDArray[Any], padding: float) -> npt.NDArray[Any]:
    """Return a value for each event as rows `[len(histories), most events]`."""
    counts = histories.events.counts
    rows = np.full((len(counts), counts.max(initial=0)), padding, values.dtype)
    rows[np.arange(rows.shape[1]) < counts[:, None]] = values
    return rows
