"""Servables of a model repository, and those that a server can run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.version import find_custom_ops

__all__ = ["LeftOut", "Selection", "ServableFound", "find_models", "find_servables", "select"]


@dataclass(frozen=True, kw_only=True)
class ServableFound:
    """Newest version of a model.

    Attributes:
        name: Model name.
        version: Newest version.
        base_path: Folder that the server polls.
        custom_ops: Ops that a stock server lacks, sorted.
    """

    name: str
    version: int
    base_path: Path
    custom_ops: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Servable that the server cannot run, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Servables for a server.

    Attributes:
        served: Servables for the server's configuration.
        left_out: Servables that it cannot run.
    """

    served: tuple[ServableFound, ...]
    left_out: tuple[LeftOut, ...]


def find_models(repository: ModelRepository) -> list[str]:
    """Return the names of the models in the repository, sorted.

    Raises:
        RepositoryError: The repository is empty.
    """
    models = repository.models()
    if not models:
        raise RepositoryError(
            f"no servable in {repository.root}; publish one with "
            f"`shortlist export --data sample --repository {repository.root}`"
        )
    return models


def find_servables(
    repository: ModelRepository, names: Sequence[str] | None = None
) -> list[ServableFound]:
    """Return the newest version of each model in the repository.

    Args:
        repository: The model repository.
        names: Model names; `None` for all.

    Raises:
        RepositoryError: The repository is empty or lacks one of the models.
    """
    models = find_models(repository)
    missing = sorted(set(names or ()) - set(models))
    if missing:
        raise RepositoryError(
            f"no servable {missing[0]!r} in {repository.root}; available: {', '.join(models)}"
        )
    return [_newest(repository, name) for name in models if names is None or name in names]


def _newest(repository: ModelRepository, name: str) -> ServableFound:
    version = repository.versions(name)[-1]
    manifest = repository.manifest(name, version)
    if manifest is not None and manifest.ops is not None:
        ops = find_custom_ops(manifest.ops)
    else:
        # A foreign SavedModel; its graph names each op in plain bytes.
        model = repository.version_path(name, version) / "saved_model.pb"
        scann = model.is_file() and b"Scann>" in model.read_bytes()
        ops = ("Scann>",) if scann else ()
    return ServableFound(
        name=name,
        version=version,
        base_path=repository.base_path(name),
        custom_ops=ops,
    )


def select(servables: Sequence[ServableFound], *, scann_problem: str | None) -> Selection:
    """Separate the servables that a server can run from those whose ops it lacks.

    Args:
        servables: Servables of the repository.
        scann_problem: Reason why the server does not have ScaNN's ops; `None` if it has them.

    Raises:
        RepositoryError: No servable remains.
    """
    if scann_problem is None:
        return Selection(served=tuple(servables), left_out=())
    served = tuple(servable for servable in servables if not servable.custom_ops)
    left_out = tuple(
        LeftOut(
            name=servable.name,
            reason=f"it needs the op {servable.custom_ops[0]!r}, and {scann_problem}",
        )
        for servable in servables
        if servable.custom_ops
    )
    if not served:
        raise RepositoryError(f"nothing is left to serve: {left_out[0].name}: {left_out[0].reason}")
    return Selection(served=served, left_out=left_out)
