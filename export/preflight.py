"""Checks before a long run, of what would otherwise fail at its end.

None of them imports TensorFlow, so that a refusal takes a moment.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from shortlist.clients.errors import ShortlistError
from shortlist.export.config import (
    CUSTOM_OPS,
    ExportConfig,
    ServableConfig,
    TrainConfig,
    installed_indexes,
)
from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, configured_split
from shortlist.export.evaluation.held_out import HeldOut, held_out_facts
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.source import check_saved_model
from shortlist.export.servable.target import check_target
from shortlist.export.towers.rating_means import ratings_of
from shortlist.serving.errors import ModelServerError, RepositoryError
from shortlist.serving.installed import missing_package, scann_problem
from shortlist.serving.repository.files import check_writable, existing_folder
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.names import check_model_name
from shortlist.serving.repository.object_store import is_url
from shortlist.serving.servers.available import check_available

__all__ = [
    "check_config",
    "check_data",
    "check_indexes",
    "check_paths",
    "check_publication",
    "check_servables",
    "check_shards",
    "check_split",
    "chosen_indexes",
    "log_left_out",
]

log = logging.getLogger(__name__)

# By the extra that installs them.
_PACKAGES = {
    "export": ("tensorflow", "tf_keras", "tensorflow_recommenders", "scipy"),
    "baselines": ("threadpoolctl",),
}
_NEAR = 2.0  # times the estimated size; checkpoints and logs need space, too


def check_config(
    config: ExportConfig,
    repository: Path,
    *,
    gates: GateSettings,
    checkpoints: Path | None = None,
    baselines: bool = False,
) -> None:
    """Check what is known before the data is read.

    Args:
        config: Configuration of the export.
        repository: Model repository to publish into.
        gates: Limits of the gates, which name the server that they start.
        checkpoints: Folder of the checkpoints; None for one in the repository.
        baselines: Whether all baselines are to be measured, too.

    Raises:
        ModelServerError: The server of the gates cannot start here.
        RepositoryError: The repository cannot be written, or a model name is not valid.
        ShortlistError: A package is missing, or a folder cannot be written.
        ValueError: The target server lacks an op.
    """
    check_servables(config, repository, gates=gates)
    if baselines:
        _check_installed("baselines")
    for option, folder in (
        ("--checkpoints", checkpoints),
        ("--tensorboard", config.train.tensorboard),
    ):
        try:
            if folder is not None:
                check_writable(folder)
        except OSError as exc:
            raise ShortlistError(
                f"cannot write to {folder}: {exc.strerror}; choose another folder with {option}"
            ) from exc


def check_servables(config: ServableConfig, repository: Path, *, gates: GateSettings) -> None:
    """Check what any publication of servables needs.

    Args:
        config: Model name, indexes and target.
        repository: Model repository to publish into.
        gates: Limits of the gates, which name the server that they start.

    Raises:
        ModelServerError: The server of the gates cannot start here.
        RepositoryError: The repository cannot be written, or a model name is not valid.
        ShortlistError: A package is missing.
        ValueError: The target server lacks an op.
    """
    _check_installed("export")
    check_indexes(config)
    _check_gate_server(gates)
    ModelRepository(repository).check_publishable(config.names())


def _check_installed(extra: str) -> None:
    if missing := missing_package(_PACKAGES[extra], extra=extra):
        raise ShortlistError(missing)


def check_indexes(config: ServableConfig) -> None:
    """Check that every index can be built here and run by the target server.

    Raises:
        ShortlistError: ScaNN is to be built and is not installed.
        ValueError: The target server lacks an op, or is older than TensorFlow here.
    """
    problem = scann_problem() if "scann" in config.indexes else None
    if problem:
        raise ShortlistError(f"{problem}; or choose other indexes with --index")
    for kind in config.indexes:
        check_target(config.target, config.name(kind), CUSTOM_OPS.get(kind, ()))


def chosen_indexes(chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the chosen indexes, or all that can be built here if none is chosen.

    Raises:
        ShortlistError: ScaNN is chosen and is not installed.
    """
    indexes = tuple(dict.fromkeys(chosen or installed_indexes()))
    check_indexes(ExportConfig(indexes=indexes))
    if not chosen:
        log_left_out(indexes)
    return indexes


def log_left_out(indexes: Collection[str]) -> None:
    """Log which index is missing from those that the installed packages can build, and why."""
    problem = scann_problem()
    if problem and set(indexes) == set(installed_indexes()):
        log.warning("the index scann is left out: %s", problem)


def check_paths(paths: Mapping[str, str | Path | None]) -> None:
    """Check that the files and folders that options name exist.

    Args:
        paths: Path of each option; None if it is not given.

    Raises:
        DataError: A path does not exist.
    """
    for option, path in paths.items():
        if path is not None and not Path(path).expanduser().exists():
            raise DataError(f"no such file or folder: {path}; check {option}")


def check_data(dataset: Dataset, config: ExportConfig, repository: Path) -> None:
    """Check what is known once the data is read.

    Raises:
        RepositoryError: There is clearly too little free disk space.
        ValueError: The data does not allow the split, nothing can be hit, ratings are missing, or
            there are more shards than candidates.
    """
    check_split(dataset, config.train)
    check_shards(config.shards, len(dataset.candidate_ids))
    _check_space(repository, _estimated_bytes(dataset, config))


def check_shards(shards: int, num_candidates: int) -> None:
    """Check that every shard gets a candidate.

    Raises:
        ValueError: There are more shards than candidates.
    """
    if shards > num_candidates:
        raise ValueError(
            f"{num_candidates} candidates cannot fill {shards} shards; use fewer with --shards"
        )


def check_split(dataset: Dataset, train: TrainConfig) -> tuple[Split, HeldOut]:
    """Return the split that a training makes, and its held-out part.

    Raises:
        ValueError: The data does not allow the split, nothing can be hit, or ratings are missing.
    """
    split = configured_split(dataset, train)
    held_out = held_out_facts(dataset, split)
    held_out.check(train.protocol)
    if train.rating_weight:
        ratings_of(dataset)
    return split, held_out


def check_publication(source: Path, name: str, repository: str, gates: GateSettings) -> None:
    """Check what is known before a SavedModel is copied and goes through the gates.

    Of a repository at a URL, only the copy itself shows whether it can be written.

    Raises:
        ModelServerError: The server of the gates cannot start here.
        RepositoryError: The source is not a SavedModel, the repository cannot be written, the
            name is not valid, or there is too little free disk space.
    """
    check_model_name(name)
    check_saved_model(source)
    _check_gate_server(gates)
    if is_url(repository):
        return
    ModelRepository(Path(repository)).check_publishable([name])
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    _check_space(Path(repository), size)


def _check_gate_server(gates: GateSettings) -> None:
    if "server" in gates.allow:
        return  # the gate records the reason
    try:
        check_available(gates.server)
    except ModelServerError as exc:
        raise ModelServerError(str(exc).replace("--server", "--gate-server")) from exc


def _estimated_bytes(dataset: Dataset, config: ExportConfig) -> int:
    """Return what the servables need at least: embeddings, and seen candidates.

    A shard has all users, and all candidates besides its own.
    """
    users, candidates = len(dataset.user_ids), len(dataset.candidate_ids)
    seen = dataset.num_interactions if config.keep_seen else 0
    shared = (users + (candidates if config.shards > 1 else 0)) * config.towers.embedding_dim + seen
    own = candidates * config.towers.embedding_dim
    return 4 * len(config.indexes) * (config.shards * shared + own)


def _check_space(repository: Path, needed: int) -> None:
    """Check the file systems of the repository and of temporary files, if their space is known.

    Raises:
        RepositoryError: The space is clearly too small.
    """
    temporary = Path(tempfile.gettempdir())
    for folder, remedy in (
        (existing_folder(repository), "choose another with --repository"),
        (temporary, "set TMPDIR to another folder"),  # the gates copy versions if they cannot link
    ):
        free = _free_bytes(folder)
        if free is None:
            continue
        line = f"{folder} has {free / 1e6:,.0f} MB free, and the servables need about "
        line += f"{needed / 1e6:,.0f} MB"
        if free < needed:
            raise RepositoryError(
                f"{line}; free some, {remedy}, or publish fewer indexes with --index"
            )
        if free < _NEAR * needed:
            log.warning("%s; free some, or %s", line, remedy)
        if _device(folder) == _device(temporary):
            return


def _free_bytes(folder: Path) -> int | None:
    """Return the free space of a file system, or None if it reports none that can be true."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    # Network and user-space file systems report zeros, or more free than there is.
    return usage.free if 0 < usage.free <= usage.total else None


def _device(folder: Path) -> int:
    return os.stat(folder).st_dev
