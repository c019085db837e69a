"""Material that gates judge a version by: exact results, held-out interactions, the corpus."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError

__all__ = [
    "Probe",
    "read_corpus",
    "read_probe",
    "write_corpus",
    "write_probe",
]

PROBE_FORMAT = 1
_LINES = 100_000  # compressed at once


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Sampled users with their exact results and held-out interactions.

    Attributes:
        k: Cutoff of recall and hit rate.
        user_ids: Sampled users.
        exact_ids: Brute force's k best candidates of each, best first, from the embeddings
            that the index was built from.
        held_out_user_ids: Users of sampled held-out interactions.
        held_out_candidate_ids: The candidate of each.
    """

    k: int
    user_ids: Sequence[str]
    exact_ids: Sequence[Sequence[str]]
    held_out_user_ids: Sequence[str]
    held_out_candidate_ids: Sequence[str]


def write_probe(version_path: Path, probe: Probe) -> None:
    """Store a probe with a version."""
    path = version_path / contract.PROBE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"format": PROBE_FORMAT, **asdict(probe)}
    path.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")


def read_probe(version_path: Path) -> Probe | None:
    """Return the probe of a version, or `None` for a foreign SavedModel.

    Raises:
        RepositoryError: The probe exists and cannot be read.
    """
    path = version_path / contract.PROBE_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.pop("format") != PROBE_FORMAT:
            raise ValueError("another format")
        return Probe(**stored)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RepositoryError(
            f"{path} cannot be read ({exc!r}); publish the model again under a new number"
        ) from exc


def write_corpus(version_path: Path, candidate_ids: Sequence[str]) -> None:
    """Store the candidate ids of a version, one JSON string per line, compressed."""
    path = version_path / contract.CORPUS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # The highest level takes five times as long and saves a tenth.
    with (
        path.open("wb") as file,
        gzip.GzipFile(fileobj=file, filename="", mode="wb", compresslevel=4, mtime=0) as stream,
    ):
        for start in range(0, len(candidate_ids), _LINES):
            part = candidate_ids[start : start + _LINES]
            stream.write(
                "".join(f"{json.dumps(candidate_id)}\n" for candidate_id in part).encode("utf-8")
            )


def read_corpus(version_path: Path) -> list[str] | None:
    """Return the candidate ids of a version, or `None` for a foreign SavedModel.

    Raises:
        RepositoryError: The file exists and cannot be read.
    """
    path = version_path / contract.CORPUS_FILE
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
        return [str(json.loads(line)) for line in lines]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as exc:
        raise RepositoryError(
            f"{path} cannot be read ({exc!r}); publish the model again under a new number"
        ) from exc
