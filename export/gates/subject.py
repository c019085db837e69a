"""What is put before the gates: a version, what it carries, and the live version beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery, read_golden
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import Probe, read_corpus, read_probe
from shortlist.serving.repository.server_config import CONFIG_FILE, read_config
from shortlist.serving.rollout.config import entry_of
from shortlist.serving.rollout.state import STABLE

__all__ = ["Live", "Subject", "live_version", "read_manifest", "subject_of"]


@dataclass(frozen=True, kw_only=True)
class Live:
    """The version that users get now.

    Attributes:
        version: Its number.
        path: Its folder.
    """

    version: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A version before the gates.

    Attributes:
        name: Model name.
        version: Its number.
        path: Its folder, staged or published.
        manifest: What the exporter recorded; None for a SavedModel from elsewhere.
        golden: Known queries and answers; may be empty.
        probe: What quality is measured by; None for a SavedModel from elsewhere.
        corpus: Candidate ids; None for a SavedModel from elsewhere.
        live: The version that users get now; None where there is none.
    """

    name: str
    version: int
    path: Path
    manifest: Mapping[str, Any] | None
    golden: tuple[GoldenQuery, ...]
    probe: Probe | None
    corpus: list[str] | None
    live: Live | None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a version's folder; None if there is none.

    Raises:
        RepositoryError: It cannot be read.
    """
    file = path / contract.MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise RepositoryError(f"{file} cannot be read ({exc}); publish the model anew") from exc
    if not isinstance(manifest, dict):
        raise RepositoryError(f"{file} does not hold a JSON object; publish the model anew")
    return manifest


def live_version(
    repository: ModelRepository, name: str, *, before: int, config: Path | None = None
) -> Live | None:
    """The version that users get now.

    It is the one with the label `stable` in the servers' configuration file, else the
    newest one, which a server without labels serves.

    Args:
        repository: The model repository.
        name: Model name.
        before: Only versions below this number.
        config: The configuration file; None for the one below the repository.
    """
    versions = [version for version in repository.versions(name) if version < before]
    path = config or repository.root / CONFIG_FILE
    entry = entry_of(read_config(path), name) if path.exists() else None
    stable = entry.labels.get(STABLE) if entry is not None else None
    version = stable if stable in versions else max(versions, default=None)
    if version is None:
        return None
    return Live(version=version, path=repository.version_path(name, version))


def subject_of(name: str, version: int, path: Path, *, live: Live | None) -> Subject:
    """Reads what a version carries.

    Raises:
        RepositoryError: A file of it cannot be read.
    """
    return Subject(
        name=name,
        version=version,
        path=path,
        manifest=read_manifest(path),
        golden=read_golden(path),
        probe=read_probe(path),
        corpus=read_corpus(path),
        live=live,
    )
