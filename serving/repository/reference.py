"""Versions as users name them: `models/retrieval_ivf/3`, `retrieval_ivf/stable`."""

from dataclasses import dataclass
from pathlib import Path

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.names import parse_version
from shortlist.serving.repository.server_config import CONFIG_FILE, entry_of, read_config

__all__ = ["VersionReference", "find_version"]

_SHOWN = 200  # characters of a text in a message


@dataclass(frozen=True, kw_only=True)
class VersionReference:
    """A version that exists in a model repository.

    Attributes:
        repository: The model repository.
        name: Model name.
        version: Version.
    """

    repository: ModelRepository
    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def path(self) -> Path:
        """Folder of the version."""
        return self.repository.version_path(self.name, self.version)


def find_version(
    text: str, *, root: Path | None = None, config: Path | None = None
) -> VersionReference:
    """Return the version that a text names.

    Args:
        text: `<repository>/<model>/<version>`, or `<model>/<version>` in the repository `root`.
            Instead of a version, a label of the servers' configuration.
        root: Model repository; `None` if the text must contain it.
        config: The servers' configuration file; `None` for that of the repository.

    Raises:
        RepositoryError: There is no such version.
    """
    places = [Path(text), *([] if root is None else [root / text])]
    problem = (
        f"{text[:_SHOWN]!r} is not a version of a model repository; give "
        "<repository>/<model>/<version>"
        + ("" if root is None else f", or <model>/<version> of those in {root}")
    )
    try:
        bases = [path.resolve() for path in places]
        bases = [path for path in bases if path.parent.is_dir()]
    except (OSError, ValueError) as exc:  # no path at all: too long, or with NUL
        raise RepositoryError(problem) from exc
    for path in bases:
        repository, name = ModelRepository(path.parent.parent), path.parent.name
        versions = repository.versions(name)
        labels = _labels(config or repository.root / CONFIG_FILE, name)
        version = labels.get(path.name, parse_version(path.name))
        if version in versions:
            return VersionReference(repository=repository, name=name, version=version)
        if versions:
            known = [*map(str, versions), *sorted(labels)]
            problem = f"no version {path.name!r} of {name!r} in {repository.root}; available: "
            problem += ", ".join(known)
    raise RepositoryError(problem)


def _labels(config: Path, name: str) -> dict[str, int]:
    """Return the versions by label in a configuration file, which may be missing."""
    entry = entry_of(read_config(config), name) if config.is_file() else None
    return {} if entry is None else dict(entry.labels)
