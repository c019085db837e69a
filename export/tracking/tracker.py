"""Seam between published versions and an experiment tracker."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shortlist.clients import contract
from shortlist.clients.errors import ShortlistError
from shortlist.serving.installed import missing_package
from shortlist.serving.repository.version import Manifest, checksum

__all__ = [
    "Published",
    "Tracker",
    "TrackingError",
    "check_tracker",
    "open_tracker",
]

_KINDS = ("mlflow",)


class TrackingError(ShortlistError):
    """A tracker cannot be reached, or refuses what it is told."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One version of one servable, as a tracker learns of it.

    Attributes:
        name: Model name of the servable, such as `retrieval_ivf`.
        version: Version number.
        path: Absolute folder of the version.
        manifest: Its manifest.
    """

    name: str
    version: int
    path: Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest's file, which holds the checksums of all others."""
        return checksum(self.path / contract.MANIFEST_FILE)

    @property
    def report(self) -> Path | None:
        """HTML report of the exporter; `None` without one."""
        path = self.path / contract.REPORT_FILE
        return path if path.is_file() else None


class Tracker(Protocol):
    """An experiment tracker with a registry of models.

    All methods raise `TrackingError` if it cannot be reached or refuses.
    """

    @property
    def address(self) -> str:
        """Place of its records, for messages."""

    def known(self, name: str) -> Collection[str]:
        """Return the fingerprints of the versions of a servable that it has."""

    def log(self, servables: Sequence[Published]) -> None:
        """Record the servables of one publication, and register each as a model's version."""

    def label(self, name: str, labels: Mapping[str, str | None]) -> Mapping[str, str]:
        """Make labels of a servable point where they point on the servers.

        Args:
            name: Model name of the servable.
            labels: Fingerprint of the version by label; `None` removes the label.

        Returns:
            What changed: a few words by label.
        """


def check_tracker(text: str) -> tuple[str, str | None]:
    """Return the kind and the experiment of `mlflow[:EXPERIMENT]`; contacts nothing.

    Raises:
        ValueError: The text names no known tracker.
        TrackingError: Its package is not installed.
    """
    kind, colon, experiment = text.partition(":")
    if kind not in _KINDS or (colon and not experiment):
        raise ValueError(f"{text!r} is not a tracker; write mlflow or mlflow:EXPERIMENT")
    problem = missing_package((kind, "alembic", "sqlalchemy"), extra=kind)
    if problem is not None:
        raise TrackingError(f"--track {text}: {problem}")
    return kind, experiment or None


def open_tracker(text: str) -> Tracker:
    """Return the tracker that a text names; see `check_tracker` for the errors."""
    _, experiment = check_tracker(text)
    from shortlist.export.tracking.mlflow import MlflowTracker  # takes seconds

    return MlflowTracker(experiment)
