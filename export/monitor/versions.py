"""What a model repository says about the versions that answered."""

from dataclasses import dataclass
from datetime import UTC, datetime

from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import read_corpus
from shortlist.serving.repository.version import DriftReference

__all__ = ["VersionFacts", "epoch_seconds", "version_facts"]


@dataclass(frozen=True, kw_only=True)
class VersionFacts:
    """Facts about a version; `None` if they are unknown.

    Attributes:
        created: Time of its export in epoch seconds.
        candidates: Size of its corpus.
        reference: What its export says to measure drift from.
    """

    created: float | None = None
    candidates: int | None = None
    reference: DriftReference | None = None


def version_facts(repository: ModelRepository, name: str, version: int) -> VersionFacts | None:
    """Return the facts about a version, or `None` if the repository does not hold it.

    Raises:
        RepositoryError: A file of the version cannot be read.
    """
    if version not in repository.versions(name):
        return None
    manifest = repository.manifest(name, version)
    corpus = read_corpus(repository.version_path(name, version))
    if manifest is None:
        return VersionFacts()
    return VersionFacts(
        created=epoch_seconds(manifest.created),
        candidates=len(corpus)
        if corpus is not None
        else manifest.dataset.candidates
        if manifest.dataset
        else None,
        reference=manifest.reference,
    )


def epoch_seconds(created: str | None) -> float | None:
    """Return the time of a manifest in seconds since the epoch; `None` if it has none."""
    try:
        time = datetime.fromisoformat(created or "")
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
