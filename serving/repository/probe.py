"""Material that gates judge a version by: exact results, the corpus, users' interactions."""

import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError

__all__ = [
    "Description",
    "Interaction",
    "Probe",
    "SampledUser",
    "UserSample",
    "read_corpus",
    "read_descriptions",
    "read_probe",
    "read_user_sample",
    "write_corpus",
    "write_descriptions",
    "write_probe",
    "write_user_sample",
]

# Format 1 held sampled held-out interactions, too; only format 3 has inputs.
PROBE_FORMAT = 2
_WITH_INPUTS = 3
USERS_FORMAT = 1
CATALOGUE_FORMAT = 1
_BUFFER = 2**20  # bytes compressed at once

_encode = json.JSONEncoder(separators=(",", ":")).encode

# Position in the corpus file, and time in seconds since the epoch if the data has times.
Interaction: TypeAlias = tuple[int, int | None]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Sampled users with their exact results.

    Attributes:
        k: Cutoff of recall.
        user_ids: Sampled users.
        exact_ids: Brute force's k best candidates of each, best first, from the embeddings
            that the index was built from.
        inputs: Values of `serving_default` by input name, one per sampled user; `None` if
            `user_ids` are its only input.
    """

    k: int
    user_ids: Sequence[str]
    exact_ids: Sequence[Sequence[str]]
    inputs: Mapping[str, Sequence[Any]] | None = None

    def requests(self, size: int) -> Iterator[dict[str, Sequence[Any]]]:
        """Yield inputs by name for the sampled users, at most `size` at once."""
        inputs = {contract.USER_ID: self.user_ids} if self.inputs is None else self.inputs
        for start in range(0, len(self.user_ids), size):
            yield {name: list(values[start : start + size]) for name, values in inputs.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What people read about a candidate.

    Attributes:
        title: Title; empty if it is the id.
        attributes: Number, or list of values, by attribute; unknown ones are missing.
    """

    title: str = ""
    attributes: Mapping[str, float | Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SampledUser:
    """All interactions of one user.

    Attributes:
        fitted: Interactions that the version was trained on.
        held_out: Interactions held out for its metrics.
        given: Other interactions of a held-out user, which requests carried.
    """

    fitted: tuple[Interaction, ...] = ()
    held_out: tuple[Interaction, ...] = ()
    given: tuple[Interaction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UserSample:
    """Record of what a version was trained on, for a sample of users.

    The users are those with the lowest hashes, so that the samples of two versions have as many
    users in common as possible.

    Attributes:
        bound: Hash of the first user that is missing because the sample is full; 2**64 if none
            is. Users with lower hashes are in the sample, left out, or without interactions.
        left_out: Users below `bound` with too many interactions to store.
        users: Users by id, ascending by hash.
    """

    bound: int
    left_out: frozenset[str] = frozenset()
    users: Mapping[str, SampledUser]


def write_probe(version_path: Path, probe: Probe) -> None:
    """Store a probe with a version."""
    path = version_path / contract.PROBE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"format": PROBE_FORMAT, **asdict(probe)}
    if probe.inputs is None:
        del stored["inputs"]
    else:
        stored["format"] = _WITH_INPUTS
    path.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")


def read_probe(version_path: Path) -> Probe | None:
    """Return the probe of a version, or `None` for a foreign SavedModel.

    Raises:
        RepositoryError: The probe exists and cannot be read.
    """
    path = version_path / contract.PROBE_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] not in (1, PROBE_FORMAT, _WITH_INPUTS):
            raise ValueError("another format")
        return Probe(
            k=stored["k"],
            user_ids=stored["user_ids"],
            exact_ids=stored["exact_ids"],
            inputs=stored.get("inputs"),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _unreadable(path, exc) from exc


def write_corpus(version_path: Path, candidate_ids: Sequence[str]) -> None:
    """Store the candidate ids of a version, one JSON string per line, compressed."""
    _write_lines(version_path / contract.CORPUS_FILE, candidate_ids)


def read_corpus(version_path: Path) -> list[str] | None:
    """Return the candidate ids of a version, or `None` for a foreign SavedModel.

    Raises:
        RepositoryError: The file exists and cannot be read.
    """
    lines = _read_lines(version_path / contract.CORPUS_FILE)
    return None if lines is None else list(map(str, lines))


def write_descriptions(
    version_path: Path, attributes: Sequence[str], descriptions: Iterable[Description]
) -> None:
    """Store titles and attributes with a version: their names, then one JSON list per candidate.

    Args:
        version_path: Folder of the version.
        attributes: Names of the attributes.
        descriptions: Description of each candidate, in the order of the corpus.
    """

    def lines() -> Iterator[Any]:
        yield {"format": CATALOGUE_FORMAT, "attributes": list(attributes)}
        for description in descriptions:
            values = [description.attributes.get(name) for name in attributes]
            yield [description.title, *values]

    _write_lines(version_path / contract.CATALOGUE_FILE, lines())


def read_descriptions(version_path: Path) -> list[Description] | None:
    """Return titles and attributes in the order of the corpus, or `None` for a version without.

    Raises:
        RepositoryError: The file exists and cannot be read.
    """
    path = version_path / contract.CATALOGUE_FILE
    lines = _read_lines(path)
    if lines is None:
        return None
    try:
        head, *rows = lines
        if head["format"] != CATALOGUE_FORMAT:
            raise ValueError("another format")
        names = [str(name) for name in head["attributes"]]
        return [
            Description(
                title=str(title),
                attributes={
                    name: value
                    for name, value in zip(names, values, strict=True)
                    if value is not None and (isinstance(value, list) or math.isfinite(value))
                },
            )
            for title, *values in rows
        ]
    except (ValueError, KeyError, TypeError) as exc:
        raise _unreadable(path, exc) from exc


def write_user_sample(version_path: Path, sample: UserSample) -> None:
    """Store a sample of users with a version: a head, then one JSON list per user, compressed."""

    def lines() -> Iterator[Any]:
        yield {
            "format": USERS_FORMAT,
            "bound": sample.bound,
            "left_out": sorted(sample.left_out),
        }
        for user_id, user in sample.users.items():
            given = _columns(user.given) if user.given else ()
            yield [user_id, *_columns(user.fitted), *_columns(user.held_out), *given]

    _write_lines(version_path / contract.USERS_FILE, lines())


def read_user_sample(version_path: Path) -> UserSample | None:
    """Return the sample of users of a version, or `None` for one without.

    Raises:
        RepositoryError: The file exists and cannot be read.
    """
    path = version_path / contract.USERS_FILE
    lines = _read_lines(path)
    if lines is None:
        return None
    try:
        head, *rows = lines
        if head["format"] != USERS_FORMAT:
            raise ValueError("another format")
        return UserSample(
            bound=int(head["bound"]),
            left_out=frozenset(head["left_out"]),
            users={
                user_id: SampledUser(
                    fitted=_pairs(*columns[:2]),
                    held_out=_pairs(*columns[2:4]),
                    given=_pairs(*columns[4:]) if columns[4:] else (),
                )
                for user_id, *columns in rows
            },
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise _unreadable(path, exc) from exc


def _columns(interactions: Sequence[Interaction]) -> tuple[list[int], list[int | None]]:
    """Return positions and times; no times if no interaction has one."""
    times = [time for _, time in interactions]
    if all(time is None for time in times):
        times = []
    return [position for position, _ in interactions], times


def _pairs(positions: Sequence[int], times: Sequence[int]) -> tuple[Interaction, ...]:
    if not times:
        return tuple((position, None) for position in positions)
    return tuple(zip(positions, times, strict=True))


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The highest level takes five times as long and saves a tenth.
    with (
        path.open("wb") as file,
        gzip.GzipFile(fileobj=file, filename="", mode="wb", compresslevel=4, mtime=0) as stream,
        io.BufferedWriter(stream, _BUFFER) as buffer,
    ):
        for value in values:
            buffer.write(_encode(value).encode() + b"\n")


def _read_lines(path: Path) -> list[Any] | None:
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        return [json.loads(line) for line in text.splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: Exception) -> RepositoryError:
    return RepositoryError(
        f"{path} cannot be read ({exc!r}); publish the model again under a new number"
    )
