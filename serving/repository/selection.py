"""Which servables of a model repository a given kind of server can run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.version import find_custom_ops

__all__ = ["LeftOut", "Selection", "ServableFound", "find_servables", "select"]


@dataclass(frozen=True, kw_only=True)
class ServableFound:
    """The newest version of one model.

    Attributes:
        name: Model name.
        version: Its newest version.
        base_path: Folder that the server polls.
        custom_ops: Ops that a stock server does not have, sorted.
    """

    name: str
    version: int
    base_path: Path
    custom_ops: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A servable that the server cannot run, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a server is going to serve.

    Attributes:
        served: Servables to put into the server's configuration.
        left_out: The others, with the reason.
    """

    served: tuple[ServableFound, ...]
    left_out: tuple[LeftOut, ...]


def find_servables(
    repository: ModelRepository, names: Sequence[str] | None = None
) -> list[ServableFound]:
    """Newest version of each model in the repository.

    Args:
        repository: Where to look.
        names: Only these models; None for all.

    Raises:
        RepositoryError: There is nothing to serve, or a name is not there.
    """
    models = repository.models()
    if not models:
        raise RepositoryError(
            f"no servable in {repository.root}; publish one with "
            f"`shortlist export --data sample --repository {repository.root}`"
        )
    missing = sorted(set(names or ()) - set(models))
    if missing:
        raise RepositoryError(
            f"no servable {missing[0]!r} in {repository.root}; there are: {', '.join(models)}"
        )
    return [_found(repository, name) for name in models if names is None or name in names]


def _found(repository: ModelRepository, name: str) -> ServableFound:
    version = repository.versions(name)[-1]
    manifest = repository.manifest(name, version)
    if manifest is not None and manifest.ops is not None:
        ops = find_custom_ops(manifest.ops)
    else:
        # A foreign SavedModel: its graph names each op in plain bytes.
        model = repository.version_path(name, version) / "saved_model.pb"
        scann = model.is_file() and b"Scann>" in model.read_bytes()
        ops = ("Scann>",) if scann else ()
    return ServableFound(
        name=name,
        version=version,
        base_path=repository.base_path(name),
        custom_ops=ops,
    )


def select(servables: Sequence[ServableFound], *, custom_ops: bool) -> Selection:
    """Splits servables by whether the server has the ops that they need.

    Args:
        servables: As found in the repository.
        custom_ops: Whether the server has ScaNN's ops; a stock server has not.

    Raises:
        RepositoryError: Nothing would be left to serve.
    """
    if custom_ops:
        return Selection(served=tuple(servables), left_out=())
    served = tuple(servable for servable in servables if not servable.custom_ops)
    left_out = tuple(
        LeftOut(
            name=servable.name,
            reason=f"a stock server does not have the op {servable.custom_ops[0]!r}; "
            "the embedded server does",
        )
        for servable in servables
        if servable.custom_ops
    )
    if not served:
        raise RepositoryError(
            f"nothing is left to serve: {left_out[0].name}: {left_out[0].reason} "
            "(--server embedded)"
        )
    return Selection(served=served, left_out=left_out)
