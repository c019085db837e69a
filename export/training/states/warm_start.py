"""The version that a training starts from; imports no TensorFlow, so that refusals are quick."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.export.config import ExportConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.training.states.archive import Archive
from shortlist.serving.repository.probe import (
    Interaction,
    UserSample,
    read_corpus,
    read_user_sample,
)
from shortlist.serving.repository.reference import VersionReference
from shortlist.serving.repository.version import Manifest, read_manifest

__all__ = ["FORMAT", "TASTE_PART", "WarmStart", "WarmStartError", "read_warm_start"]

FORMAT = 1
TASTE_PART = "taste.zip"  # file of a state

_MOST_KNOWN = 0.01  # of the held-out interactions; exact duplicates may be in two parts
# Parts of the towers that are not carried, so that they may differ.
_FREE = ("linear_dimension", "temperature")
_WITHOUT = "or export without --warm-start"


class WarmStartError(ValueError):
    """A version has no training that this one can start from."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A training to start from.

    Attributes:
        name: Version, such as `retrieval_ivf/12`.
        version: Its number; None if it is of another repository or model.
        folder: Folder of its state.
        settings: Settings of its query tower, by name.
        split: Training configuration of the version, whose split must be the same.
        sample: Users with the interactions that it was trained on; None if not recorded.
        corpus: Its candidate ids.
    """

    name: str
    version: int | None
    folder: Path
    settings: Mapping[str, Any]
    split: Mapping[str, Any]
    sample: UserSample | None
    corpus: list[str]

    def check_split(self, dataset: Dataset, split: Split, config: TrainConfig) -> None:
        """Check that what judges the new training was not trained on by the earlier one.

        All methods of splitting keep an interaction in its part or move it towards the training
        part when later ones are added, if they are configured the same.

        Raises:
            WarmStartError: It was.
        """
        for key, option in _split_options(split.method):
            theirs = self.split.get(key)
            ours = split.method if key == "split" else getattr(config, key)
            if theirs != ours:
                raise WarmStartError(
                    f"{self.name} was trained with {key} {theirs}, now {ours}, so it knows "
                    f"interactions that are now held out; use {option} {theirs}, {_WITHOUT}"
                )
        known, total = self._known(dataset, split)
        if known > _MOST_KNOWN * total:
            raise WarmStartError(
                f"{self.name} was trained on {known} of {total} sampled interactions that are now "
                "held out: the data has lost later ones or changed; train on data that has grown, "
                f"{_WITHOUT}"
            )

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """Return what the manifest records: the version, and how many rows it has in common."""
        with Archive(self.folder / TASTE_PART) as part:
            before = {"users": part.meta["users"], "candidates": part.meta["candidates"]}
        facts: dict[str, Any] = {"name": self.name, "version": self.version}
        for kind, ids in (("users", dataset.user_ids), ("candidates", dataset.candidate_ids)):
            kept = len(set(ids) & set(before[kind]))
            facts[kind] = {"kept": kept, "new": len(ids) - kept, "gone": len(before[kind]) - kept}
        return facts

    def _known(self, dataset: Dataset, split: Split) -> tuple[int, int]:
        """Count held-out interactions of sampled users, and those that were trained on."""
        if self.sample is None:
            return 0, 0
        times, known, total = dataset.timestamps, 0, 0
        fitted = {
            user: {_event(self.corpus, event) for event in events.fitted}
            for user, events in self.sample.users.items()
        }
        users = dataset.user_positions[split.held_out].tolist()
        for row, user in zip(split.held_out.tolist(), users, strict=True):
            theirs = fitted.get(dataset.user_ids[user])
            if theirs is not None:
                candidate = dataset.candidate_ids[int(dataset.candidate_positions[row])]
                total += 1
                known += (candidate, None if times is None else int(times[row])) in theirs
        return known, total


def read_warm_start(
    reference: VersionReference, config: ExportConfig, repository: Path
) -> WarmStart:
    """Return the training of a version, if an export can start from it.

    A version that was made by an update has none of its own, and stands for its parent.

    Args:
        reference: Version to start from.
        config: Configuration of the export.
        repository: Model repository that it publishes into.

    Raises:
        RepositoryError: A file of the version cannot be read.
        WarmStartError: It has no state, or its towers are others.
    """
    if config.train.loss != "user_softmax":
        raise WarmStartError(f"{config.train.loss} has no warm start; export without --warm-start")
    manifest, named = read_manifest(reference.path) or Manifest(), reference
    known = reference.repository.versions(reference.name)
    while manifest.update is not None and manifest.parent is not None and manifest.parent in known:
        reference = replace(reference, version=manifest.parent)
        manifest = read_manifest(reference.path) or Manifest()
    folder = reference.path / contract.TRAINING_FOLDER
    if not (folder / TASTE_PART).is_file():
        origin = f"{manifest.parent}, which {named} was updated from," if manifest.update else named
        raise WarmStartError(
            f"{origin} holds no training state; name a version exported without "
            f"--without-training-state, {_WITHOUT}"
        )
    for key, theirs, ours in _differences(manifest, config):
        raise WarmStartError(
            f"{key} is {theirs} in {reference} and {ours} here; set it to {theirs}, {_WITHOUT}"
        )
    same = reference.repository.root.resolve() == repository.resolve()
    return WarmStart(
        name=str(reference),
        version=reference.version if same and manifest.model == config.model else None,
        folder=folder,
        # What the manifest leaves out is None.
        settings={"feature_share": None, **manifest.settings},
        split=manifest.config.get("train", {}),
        sample=read_user_sample(reference.path),
        corpus=read_corpus(reference.path) or [],
    )


def _differences(manifest: Manifest, config: ExportConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield values that tables or optimizers depend on and that differ: key, theirs, ours."""
    towers, train = manifest.config.get("towers", {}), manifest.config.get("train", {})
    for key, ours in asdict(config.towers).items():
        if key not in _FREE and towers.get(key) != ours:
            yield key, towers.get(key), ours
    if train.get("optimizer") != config.train.optimizer:
        yield "optimizer", train.get("optimizer"), config.train.optimizer


def _split_options(method: str) -> list[tuple[str, str]]:
    options = [("split", "--split")]
    if method != "leave_last_out":
        options.append(("held_out_fraction", "--held-out-fraction"))
    options.append(("validation_fraction", "--validation-fraction"))
    if method in ("random", "new_users"):
        options.append(("seed", "--seed"))
    return options


def _event(corpus: list[str], interaction: Interaction) -> tuple[str, int | None]:
    position, time = interaction
    return corpus[position], time
