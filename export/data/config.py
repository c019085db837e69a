"""Configuration of the data source, and the error of unusable data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from shortlist.clients.errors import ShortlistError

__all__ = ["MOVIELENS", "SAMPLE", "CandidateId", "DataConfig", "DataError"]

CandidateId = Literal["title", "movie_id"]

SAMPLE = "sample"
MOVIELENS = ("movielens/100k", "movielens/1m", "movielens/latest-small", "movielens/25m")


class DataError(ShortlistError, ValueError):
    """Unusable data. The message names file, row, column and remedy in one line."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A source of interactions, and how to read it.

    Attributes:
        source: `sample` (synthetic data); one of `MOVIELENS`, read through TensorFlow Datasets;
            a folder with a MovieLens release; or a CSV or Parquet file of interactions.
        candidate_id: Candidate id of a MovieLens movie: its title or its movie id.
        strip_year: Remove the year from MovieLens titles; movies that then share a title become
            one candidate.
        data_dir: Folder of TensorFlow Datasets; None for its default.
        user_column: Column of the user ids in a CSV or Parquet file and in `users_file`.
        candidate_column: Column of the candidate ids in this file and in `candidates_file`.
        rating_column: Column of the ratings; None for `rating`, if there is one.
        timestamp_column: Column of the times; None for `timestamp`, if there is one.
        candidates_file: CSV or Parquet file of the catalogue; None for a catalogue of all
            candidates with interactions.
        title_column: Column of the titles in `candidates_file`; None for `title`, if there is
            one, else the ids.
        users_file: CSV or Parquet file with attributes of users, for any source; None for
            those that the source itself has.
        context_columns: Columns of a CSV or Parquet file with a circumstance of each
            interaction, such as the device.
        sample_seed: Random seed of `sample`.
        sample_users: Number of users in `sample`.
        sample_candidates: Number of candidates in `sample`.
        sample_interactions: Approximate number of interactions in `sample`.
    """

    source: str = "movielens/100k"
    candidate_id: CandidateId = "title"
    strip_year: bool = False
    data_dir: str | None = None
    user_column: str = "user_id"
    candidate_column: str = "candidate_id"
    rating_column: str | None = None
    timestamp_column: str | None = None
    candidates_file: str | None = None
    title_column: str | None = None
    users_file: str | None = None
    context_columns: tuple[str, ...] = ()
    sample_seed: int = 42
    sample_users: int = 1000
    sample_candidates: int = 2000
    sample_interactions: int = 100_000

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(
                "source is empty; give `sample`, a name such as movielens/100k, or a path"
            )
        if self.candidate_id not in ("title", "movie_id"):
            raise ValueError(f"candidate_id must be title or movie_id, got {self.candidate_id!r}")
        if self.sample_seed < 0:
            raise ValueError(f"sample_seed must be at least 0, got {self.sample_seed}")
        for name, least in (
            ("sample_users", 1),
            ("sample_candidates", 10),
            ("sample_interactions", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("user_column", "candidate_column"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give a column name")
        for name in self.context_columns:
            if not name or self.context_columns.count(name) > 1:
                raise ValueError(
                    f"context_columns must name columns, each once, got {name!r} in "
                    f"{list(self.context_columns)}"
                )

    @property
    def path(self) -> Path | None:
        """Path of the file or folder to read; None for data by name."""
        if self.source == SAMPLE:
            return None
        path = Path(self.source).expanduser()
        return None if self.source in MOVIELENS and not path.is_dir() else path

    def as_json(self) -> dict[str, Any]:
        """Return the values that are not the default, and the source, with absolute paths."""
        values = {
            part.name: value
            for part in fields(self)
            if (value := getattr(self, part.name)) != part.default or part.name == "source"
        }
        if "context_columns" in values:
            values["context_columns"] = list(self.context_columns)
        for name in ("source", "data_dir", "candidates_file", "users_file"):
            if name in values and (name != "source" or self.path is not None):
                values[name] = str(Path(values[name]).expanduser().absolute())
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `as_json` stored; unknown values are ignored.

        Raises:
            ValueError: A value is out of range.
        """
        names = {part.name for part in fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        known["context_columns"] = tuple(known.get("context_columns", ()))
        return cls(**known)
