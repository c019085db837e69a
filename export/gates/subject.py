"""Versions to run the gates on, with their files and the live version to compare with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shortlist.serving.repository.golden import GoldenQuery, read_golden
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import (
    Probe,
    UserSample,
    read_corpus,
    read_probe,
    read_user_sample,
)
from shortlist.serving.repository.server_config import CONFIG_FILE, STABLE, entry_of, read_config
from shortlist.serving.repository.version import Manifest, read_manifest

__all__ = ["NOT_EXPORTED", "Live", "Subject", "live_version", "read_subject"]

NOT_EXPORTED = "not exported by Shortlist"


@dataclass(frozen=True, kw_only=True)
class Live:
    """The version that users get now; its files are read when they are needed.

    Attributes:
        version: Version number.
        path: Folder of the version.
    """

    version: int
    path: Path

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest; empty for a SavedModel from elsewhere."""
        return read_manifest(self.path) or Manifest()

    @cached_property
    def golden(self) -> tuple[GoldenQuery, ...]:
        """Known queries and answers; may be empty."""
        return read_golden(self.path)

    @cached_property
    def probe(self) -> Probe | None:
        """Users with their exact answers; None for a SavedModel from elsewhere."""
        return read_probe(self.path)

    @cached_property
    def corpus(self) -> list[str] | None:
        """Candidate ids; None for a SavedModel from elsewhere."""
        return read_corpus(self.path)

    @cached_property
    def sample(self) -> UserSample | None:
        """Users with the interactions that it was trained on; None if not recorded."""
        return read_user_sample(self.path)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A version to run the gates on.

    Attributes:
        name: Model name.
        version: Version number.
        path: Folder of the version, staged or published.
        manifest: Manifest; empty for a SavedModel from elsewhere.
        golden: Known queries and answers; may be empty.
        probe: Users with their exact answers; None for a SavedModel from elsewhere.
        corpus: Candidate ids; None for a SavedModel from elsewhere.
        sample: Users with their fitted and held-out interactions; None if not recorded.
        live: The version that users get now, or None.
        recorded: Recorded requests that it must answer; their answers are not known.
        note: Origin of the known queries, or why there are none; None if not recorded.
    """

    name: str
    version: int
    path: Path
    manifest: Manifest
    golden: tuple[GoldenQuery, ...]
    probe: Probe | None
    corpus: list[str] | None
    sample: UserSample | None
    live: Live | None
    recorded: tuple[GoldenQuery, ...] = ()
    note: str | None = None

    def without(self, what: str) -> str:
        """Return why a gate that needs `what` is skipped."""
        return f"the version has no {what}" if self.manifest.exported else NOT_EXPORTED


def live_version(
    repository: ModelRepository, name: str, *, before: int, config: Path | None = None
) -> Live | None:
    """Return the version that users get now.

    It is the one with the label `stable` in the servers' configuration file, or else the
    newest one, which a server without labels serves.

    Args:
        repository: Model repository.
        name: Model name.
        before: Version number that the live one must be below.
        config: Configuration file of the servers; None for the repository's own.
    """
    versions = [version for version in repository.versions(name) if version < before]
    path = config or repository.root / CONFIG_FILE
    entry = entry_of(read_config(path), name) if path.exists() else None
    stable = entry.labels.get(STABLE) if entry is not None else None
    version = stable if stable in versions else max(versions, default=None)
    if version is None:
        return None
    return Live(version=version, path=repository.version_path(name, version))


def read_subject(name: str, version: int, path: Path, *, live: Live | None) -> Subject:
    """Read the files of a version that gates need.

    Raises:
        RepositoryError: A file cannot be read.
    """
    return Subject(
        name=name,
        version=version,
        path=path,
        manifest=read_manifest(path) or Manifest(),
        golden=read_golden(path),
        probe=read_probe(path),
        corpus=read_corpus(path),
        sample=read_user_sample(path),
        live=live,
    )
