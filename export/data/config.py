"""Configuration of the data source, and the error of unusable data."""

from dataclasses import dataclass
from typing import Literal

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
        user_column: Column of the user ids in a CSV or Parquet file.
        candidate_column: Column of the candidate ids in this file and in `candidates_file`.
        rating_column: Column of the ratings; None for `rating`, if there is one.
        timestamp_column: Column of the times; None for `timestamp`, if there is one.
        candidates_file: CSV or Parquet file of the catalogue; None for a catalogue of all
            candidates with interactions.
        title_column: Column of the titles in `candidates_file`; None for `title`, if there is
            one, else the ids.
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
