"""Configuration of the data source, and the error of unusable data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from shortlist.clients.contract import MAX_HISTORY_WEIGHT as MAX_WEIGHT
from shortlist.clients.contract import MIN_HISTORY_WEIGHT as MIN_WEIGHT
from shortlist.clients.errors import ShortlistError

__all__ = [
    "DATABASES",
    "MOVIELENS",
    "SAMPLE",
    "SKIPPED_SHARE",
    "AttributeType",
    "CandidateId",
    "DataConfig",
    "DataError",
    "UnknownCandidates",
    "is_url",
    "option_of",
    "without_password",
]

CandidateId = Literal["title", "movie_id"]
UnknownCandidates = Literal["error", "drop", "add"]
AttributeType = Literal["text", "number"]

SAMPLE = "sample"
SKIPPED_SHARE = 0.01  # of the rows, that `--skip-bad-rows` goes on without
MOVIELENS = ("movielens/100k", "movielens/1m", "movielens/latest-small", "movielens/25m")


class DataError(ShortlistError, ValueError):
    """Unusable data. The message names file, row, column and remedy in one line."""


# Schemes that are read with a query; SQLAlchemy has more dialects than it ships.
DATABASES = (
    *("bigquery", "clickhouse", "databricks", "duckdb", "mariadb", "mssql", "mysql", "oracle"),
    *("postgresql", "redshift", "snowflake", "sqlite", "trino"),
)
# Options that are not called as their field.
_OPTIONS = {
    "source": "--data",
    "candidates_file": "--candidates",
    "users_file": "--users",
    "context_columns": "--context-column",
    "attribute_types": "--attribute-type",
    "text_columns": "--text-column",
}
_PASSWORD = re.compile(r"(://[^/:@\s]*):[^@/\s]*@")


def without_password(address: str) -> str:
    """Return an address without the password in it."""
    return _PASSWORD.sub(r"\1@", address)


def is_url(address: str) -> bool:
    """Return whether the address of data is a URL rather than a path."""
    return "://" in address


def option_of(field: str) -> str:
    """Return the option of the command line for a field of `DataConfig`."""
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A source of interactions, and how to read it.

    Attributes:
        source: `sample` (synthetic data); one of `MOVIELENS`, read through TensorFlow Datasets;
            a folder with a MovieLens release; or a file of interactions, a folder or pattern of
            such files, or the address of a store or database.
        more_sources: Further files, folders, patterns or addresses with the same columns.
        query: SQL that returns the interactions, if `source` is the address of a database.
        delimiter: Delimiter of text files; None to find it.
        encoding: Encoding of text files, such as `windows-1252`; None to find it.
        candidate_id: Candidate id of a MovieLens movie: its title or its movie id.
        strip_year: Remove the year from MovieLens titles; movies that then share a title become
            one candidate.
        data_dir: Folder of TensorFlow Datasets; None for its default.
        user_column: Column of the user ids in files of interactions and in `users_file`;
            `user_id` also stands for usual names such as `customerId`.
        candidate_column: Column of the candidate ids in files of interactions; `candidate_id`
            also stands for usual names such as `product_id`.
        rating_column: Column of the ratings; None for `rating` or a usual name, if there is one
            without missing values.
        timestamp_column: Column of the times; None for `timestamp` or a usual name, if there is
            one.
        timestamp_format: Form of the times as for `datetime.strptime`, such as
            `%m/%d/%Y %H:%M`; None for the usual forms.
        candidates_file: File of the catalogue; None for a catalogue of all candidates with
            interactions.
        item_id_column: Column of the candidate ids in `candidates_file`; None for the name in
            the interactions or a usual one.
        title_column: Column of the titles in `candidates_file`; None for `title` or a usual
            name, if there is one, else the ids.
        attribute_types: Types of columns in `candidates_file` and `users_file`, such as
            `sku=text` and `price=number`; others are found out.
        unknown_candidates: Treatment of interactions whose candidate is not in
            `candidates_file`: `error`, `drop` them, or `add` the candidates without attributes.
        users_file: File with attributes of users, for any source; None for those that the
            source itself has.
        context_columns: Columns of the interactions with a circumstance, such as the device.
        event_column: Column of the interactions with the kind of event.
        event_weights: Weight of each kind, such as `view=1` and `purchase=10`; events of weight
            0 are left out.
        weight_column: Column of the interactions with their weights, such as quantities; those
            of 0 or less are left out. Multiplied with `event_weights` if there are both.
        text_columns: Columns of `candidates_file` with texts, whose words become candidate
            features; `title` for the titles of any source.
        skip_bad_rows: Largest share of the interactions that may be left out because they are
            faulty; None if no row may be left out.
        sample_seed: Random seed of `sample`.
        sample_users: Number of users in `sample`.
        sample_candidates: Number of candidates in `sample`.
        sample_interactions: Approximate number of interactions in `sample`.
    """

    source: str = "movielens/100k"
    more_sources: tuple[str, ...] = ()
    query: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    candidate_id: CandidateId = "title"
    strip_year: bool = False
    data_dir: str | None = None
    user_column: str = "user_id"
    candidate_column: str = "candidate_id"
    rating_column: str | None = None
    timestamp_column: str | None = None
    timestamp_format: str | None = None
    candidates_file: str | None = None
    item_id_column: str | None = None
    title_column: str | None = None
    attribute_types: tuple[str, ...] = ()
    unknown_candidates: UnknownCandidates = "error"
    users_file: str | None = None
    context_columns: tuple[str, ...] = ()
    event_column: str | None = None
    event_weights: tuple[str, ...] = ()
    weight_column: str | None = None
    text_columns: tuple[str, ...] = ()
    skip_bad_rows: float | None = None
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
        if self.unknown_candidates not in get_args(UnknownCandidates):
            raise ValueError(
                "unknown_candidates must be one of "
                f"{', '.join(get_args(UnknownCandidates))}, got {self.unknown_candidates!r}"
            )
        if self.skip_bad_rows is not None and not 0 < self.skip_bad_rows <= 1:
            raise ValueError(
                f"skip_bad_rows must be a share above 0, at most 1, got {self.skip_bad_rows:g}"
            )
        if self.unknown_candidates != "error" and self.candidates_file is None:
            raise ValueError(
                f"unknown_candidates is {self.unknown_candidates}, which needs a catalogue: give "
                "candidates_file (--candidates)"
            )
        if self.delimiter == "\\t":  # as shells pass it
            object.__setattr__(self, "delimiter", "\t")
        self._check_columns()

    def _check_columns(self) -> None:
        for pair in self.attribute_types:
            name, _, kind = pair.rpartition("=")
            if not name or kind not in get_args(AttributeType):
                raise ValueError(
                    "attribute_types must be NAME=TYPE with the type "
                    f"{' or '.join(get_args(AttributeType))}, got {pair!r}"
                )
        if self.event_weights and self.event_column is None:
            raise ValueError(
                "event_weights needs event_column, the column with the kinds of events"
            )
        self.weight_of_event()
        for name in ("user_column", "candidate_column"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give a column name")
        for option in ("context_columns", "text_columns"):
            names = getattr(self, option)
            for name in names:
                if not name or names.count(name) > 1:
                    raise ValueError(
                        f"{option} must name columns, each once, got {name!r} in {list(names)}"
                    )

    @property
    def sources(self) -> tuple[str, ...]:
        """All files, folders, patterns or addresses to read."""
        return (self.source, *self.more_sources)

    def attribute_type(self, name: str) -> AttributeType | None:
        """Return the type that was named for a column; None if the values decide."""
        if name in self.text_columns:
            return "text"
        types = dict(pair.rpartition("=")[::2] for pair in self.attribute_types)
        return cast(AttributeType | None, types.get(name))

    def weight_of_event(self) -> dict[str, float]:
        """Return the weight of each kind of event.

        Raises:
            ValueError: One is not NAME=WEIGHT, or a kind has two weights.
        """
        weights: dict[str, float] = {}
        for pair in self.event_weights:
            name, _, text = pair.rpartition("=")
            try:
                weight = float(text)
            except ValueError:
                weight = -1.0
            if not name or not (weight == 0 or MIN_WEIGHT <= weight <= MAX_WEIGHT):
                raise ValueError(
                    f"event_weights must be NAME=WEIGHT with a weight of 0 (events to leave out) "
                    f"or {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, such as view=1,purchase=10, got {pair!r}"
                )
            if name in weights:
                raise ValueError(f"event_weights has two weights of {name!r}; give one")
            weights[name] = weight
        return weights

    @property
    def path(self) -> Path | None:
        """Path of the file or folder to read; None for data by name or URL."""
        if self.source == SAMPLE or is_url(self.source):
            return None
        path = Path(self.source).expanduser()
        return None if self.source in MOVIELENS and not path.is_dir() else path

    def as_json(self) -> dict[str, Any]:
        """Return the values that are not the default, with absolute paths and no passwords."""
        values = {
            part.name: value
            for part in fields(self)
            if (value := getattr(self, part.name)) != part.default or part.name == "source"
        }
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = [_absolute(v) if name == "more_sources" else v for v in value]
        for name in ("source", "data_dir", "candidates_file", "users_file"):
            if name in values and (name != "source" or self.path or is_url(self.source)):
                values[name] = _absolute(values[name])
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `as_json` stored; unknown values are ignored.

        Raises:
            ValueError: A value is out of range.
        """
        names = {part.name for part in fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = tuple(value)
        return cls(**known)


def _absolute(address: str) -> str:
    return (
        without_password(address) if is_url(address) else str(Path(address).expanduser().absolute())
    )
