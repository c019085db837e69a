"""Every version at a glance: on disk, in its manifest, on the servers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import (
    CONFIG_FILE,
    ModelEntry,
    entry_of,
    read_config,
)
from shortlist.serving.repository.version import Headline, Manifest, size_bytes
from shortlist.serving.rollout.fleet import Server, UnreachableError
from shortlist.serving.rollout.state import MANAGED_LABELS, ServerState

__all__ = ["VersionRow", "list_versions", "live_at_once"]


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """One version of one model.

    Attributes:
        name: Model name.
        version: Version.
        created: Time of publication, in UTC.
        size_bytes: Size of its files.
        labels: Labels that point at it, in the configuration file or on a server.
        states: State by address, for servers that know the version.
        headline: Headline metric; `None` for a foreign SavedModel.
        metrics: Metrics of the exporter; empty for a foreign SavedModel.
        gates: Number of gates by verdict; empty without a record.
        problem: Reason why the manifest cannot be read; `None` if it can.
        report: HTML report of the exporter; `None` without one.
    """

    name: str
    version: int
    created: str
    size_bytes: int
    labels: tuple[str, ...]
    states: Mapping[str, str]
    headline: Headline | None
    metrics: Mapping[str, Any]
    gates: Mapping[str, int]
    problem: str | None = None
    report: str | None = None


def list_versions(
    repository: ModelRepository,
    names: Sequence[str],
    *,
    config_path: Path,
    servers: Sequence[Server],
) -> tuple[list[VersionRow], dict[str, str]]:
    """Return all versions of models, newest first.

    Args:
        repository: The model repository.
        names: Model names.
        config_path: The servers' configuration file; may be missing.
        servers: Servers to ask.

    Returns:
        Versions, and the reason by address of servers that did not answer.

    Raises:
        RepositoryError: The configuration file cannot be read.
    """
    config = read_config(config_path) if config_path.exists() else None
    unreachable: dict[str, str] = {}
    rows = []
    for name in names:
        recorded = entry_of(config, name) if config is not None else None
        states = _observe(name, recorded, servers, unreachable)
        rows += [
            _row(repository, name, version, recorded, states)
            for version in reversed(repository.versions(name))
        ]
    return rows, unreachable


def _observe(
    name: str, recorded: ModelEntry | None, servers: Sequence[Server], unreachable: dict[str, str]
) -> list[ServerState]:
    labels = {*MANAGED_LABELS, *(recorded.labels if recorded else ())}
    states = []
    for server in servers:
        if server.address in unreachable:
            continue
        try:
            states.append(server.observe(name, labels))
        except UnreachableError as exc:
            unreachable[server.address] = str(exc)
    return states


def _row(
    repository: ModelRepository,
    name: str,
    version: int,
    recorded: ModelEntry | None,
    servers: Sequence[ServerState],
) -> VersionRow:
    path = repository.version_path(name, version)
    problem = None
    try:
        manifest = repository.manifest(name, version) or Manifest()
    except RepositoryError as exc:
        manifest, problem = Manifest(), str(exc)
    labels = {label for label, at in (recorded.labels if recorded else {}).items() if at == version}
    for server in servers:
        labels.update(label for label, at in server.labels.items() if at == version)
    verdicts = [str(result.verdict) for result in manifest.gates]
    report = path / contract.REPORT_FILE
    created = manifest.created or datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(
        timespec="seconds"
    )
    return VersionRow(
        name=name,
        version=version,
        created=created,
        size_bytes=size_bytes(path),
        labels=tuple(sorted(labels)),
        states={server.address: state for server in servers if (state := _state(server, version))},
        headline=manifest.headline,
        metrics=manifest.metrics,
        gates={verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        problem=problem,
        report=str(report) if report.is_file() else None,
    )


def _state(server: ServerState, version: int) -> str | None:
    if version in server.available:
        return "AVAILABLE"
    if version in server.busy:
        return "LOADING or UNLOADING"
    return "END, failed" if version in server.failed else None


def live_at_once(repository: ModelRepository, names: Iterable[str], version: int) -> str | None:
    """Return a line on a publication that servers load without a rollout; `None` if none does.

    Only files are read, so whether a server runs is open.

    Args:
        repository: The model repository.
        names: Models of the publication.
        version: Published version.

    Raises:
        RepositoryError: The configuration file cannot be read.
    """
    path = repository.root / CONFIG_FILE
    if not path.exists():
        return None
    config = read_config(path)
    entries = {name: entry_of(config, name) for name in names}
    newest = sorted(name for name, entry in entries.items() if entry and entry.versions is None)
    if not newest:
        return None
    earlier = {at for name in newest for at in repository.versions(name) if at < version}
    which = ""
    if len(newest) < len(config.model_config_list.config):
        which = "".join(f" --servable {name}" for name in newest)
    back = f", to go back: `shortlist rollback --to {max(earlier)}{which}`" if earlier else ""
    return (
        f"servers of {path} load the newest version of {', '.join(newest)} at once, so version "
        f"{version} is live where one runs. To keep it: `shortlist promote {version}{which}`"
        f"{back}; after either, new versions wait for `shortlist canary`"
    )
