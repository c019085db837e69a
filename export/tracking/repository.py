"""Brings a tracker up to date with a model repository."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from shortlist.export.tracking.tracker import Published, Tracker
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import entry_of, read_config
from shortlist.serving.rollout.state import MANAGED_LABELS

__all__ = ["Change", "track_repository"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a tracker learned.

    Attributes:
        name: Model name of the servable.
        version: Version that was registered; `None` if a label moved.
        label: Label that moved; `None` if a version was registered.
        what: What happened, in words.
    """

    name: str
    version: int | None = None
    label: str | None = None
    what: str


def track_repository(
    tracker: Tracker, repository: ModelRepository, names: Sequence[str], *, config_path: Path
) -> list[Change]:
    """Record the versions that a tracker does not have, and move its labels.

    Nothing in the repository changes, and a tracker that is up to date learns nothing new, so
    this can be repeated at any time. Versions without a manifest are left out.

    Args:
        tracker: The tracker.
        repository: The model repository.
        names: Model names of servables.
        config_path: The servers' configuration file, which holds the labels; may be missing.

    Raises:
        RepositoryError: The repository or the configuration file cannot be read.
        TrackingError: The tracker cannot be reached, or refuses.
    """
    published = {name: list(_published(repository, name)) for name in names}
    missing = [
        servable
        for name, servables in published.items()
        if servables
        for known in [tracker.known(name)]
        for servable in servables
        if servable.fingerprint not in known
    ]
    changes = []
    missing.sort(key=_publication)
    for _, group in groupby(missing, key=_publication):
        servables = list(group)
        tracker.log(servables)
        changes += [
            Change(name=one.name, version=one.version, what="registered") for one in servables
        ]
    config = read_config(config_path) if config_path.exists() else None
    for name, servables in published.items():
        entry = entry_of(config, name) if config is not None else None
        if entry is None or not servables:
            continue
        at = {servable.version: servable.fingerprint for servable in servables}
        # A tracker may have labels of its own, so only those of rollouts are removed.
        labels = {label: at.get(entry.labels.get(label, 0)) for label in MANAGED_LABELS}
        labels |= {label: at[version] for label, version in entry.labels.items() if version in at}
        changes += [
            Change(name=name, label=label, what=what)
            for label, what in tracker.label(name, labels).items()
        ]
    return changes


def _published(repository: ModelRepository, name: str) -> Iterator[Published]:
    for version in repository.versions(name):
        try:
            manifest = repository.manifest(name, version)
        except RepositoryError:
            continue  # `shortlist versions` names the problem
        if manifest is not None:
            path = repository.version_path(name, version).absolute()
            yield Published(name=name, version=version, path=path, manifest=manifest)


def _publication(servable: Published) -> tuple[int, str]:
    """Return the same for all servables of one export."""
    return servable.version, servable.manifest.model or servable.name
