"""Reads a MovieLens release in any of the three layouts that GroupLens has used."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from shortlist.export.data.config import CandidateId, DataError
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.sources._assemble import Catalogue, Interactions, assemble, natural_order
from shortlist.export.data.sources._delimited import ID, NUMBER, TIME, Delimited, check_columns
from shortlist.export.data.sources.features import UserTable, with_users

__all__ = ["movie_catalogue", "read_release", "user_table"]

# Named as in TensorFlow Datasets, so that both ways to read a release agree.
_GENRES_100K = (
    *("Unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_ITEM_COLUMNS = ("movie id", "title", "release date", "video release date", "URL", *_GENRES_100K)
_NO_GENRE = "(no genres listed)"
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")

_USER, _MOVIE, _RATING, _TIME = "user id", "movie id", "rating", "timestamp"
_PLAIN = (_USER, _MOVIE, _RATING, _TIME)
_AGE, _GENDER, _OCCUPATION, _ZIP = "age", "gender", "occupation", "zip"

# By number in the 1m release.
_OCCUPATIONS = (
    *("other/not specified", "academic/educator", "artist", "clerical/admin"),
    *("college/grad student", "customer service", "doctor/health care", "executive/managerial"),
    *("farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales/marketing"),
    *("scientist", "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed"),
    "writer",
)


def _layout(folder: Path) -> tuple[Delimited, Delimited] | None:
    """Files of the ratings and of the movies; None without ratings."""
    if (folder / "ratings.csv").exists():
        return Delimited(path=folder / "ratings.csv"), Delimited(path=folder / "movies.csv")
    if (folder / "ratings.dat").exists():
        return (
            _latin_1(folder / "ratings.dat", "::", _PLAIN),
            _latin_1(folder / "movies.dat", "::", (_MOVIE, "title", "genres")),
        )
    if (folder / "u.data").exists():
        return (
            _latin_1(folder / "u.data", "\t", _PLAIN),
            _latin_1(folder / "u.item", "|", _ITEM_COLUMNS),
        )
    return None


def _users_file(folder: Path) -> Delimited | None:
    """File of the users; None if the release has none."""
    if (path := folder / "users.dat").exists():
        return _latin_1(path, "::", (_USER, _GENDER, _AGE, _OCCUPATION, _ZIP))
    if (path := folder / "u.user").exists():
        return _latin_1(path, "|", (_USER, _AGE, _GENDER, _OCCUPATION, _ZIP))
    return None


def _latin_1(path: Path, delimiter: str, names: tuple[str, ...]) -> Delimited:
    return Delimited(path=path, delimiter=delimiter, names=names, encoding="latin-1", quoted=False)


def read_release(
    folder: Path, *, name: str | None = None, candidate_id: CandidateId, strip_year: bool
) -> Dataset:
    """Read the release in a folder.

    The folder contains `u.data` and `u.item`, or `ratings.dat` and `movies.dat` (both latin-1),
    or `ratings.csv` and `movies.csv` (UTF-8). `u.user` or `users.dat`, if present, describes
    the users.

    Args:
        folder: Folder of the files.
        name: Name of the dataset; None for the name of the folder.
        candidate_id: Candidate id of a movie: its title or its movie id.
        strip_year: Remove the year from titles.

    Raises:
        DataError: A file is missing, empty or faulty, or a rating is for an unknown movie.
    """
    layout = _layout(folder)
    if layout is None:
        raise DataError(_no_release(folder))
    ratings, movies = layout
    if not movies.path.exists():
        raise DataError(
            f"{folder} has {ratings.path.name} but no {movies.path.name}; "
            "unpack the whole release there"
        )
    catalogue = _read_movies(movies, candidate_id=candidate_id, strip_year=strip_year)
    dataset = assemble(name or folder.resolve().name, _read_ratings(ratings), catalogue)
    users = _users_file(folder)
    return dataset if users is None else with_users(dataset, _read_users(users))


def movie_catalogue(
    movie_ids: Sequence[str],
    titles: Sequence[str],
    genres: Sequence[tuple[str, ...]],
    *,
    candidate_id: CandidateId,
    strip_year: bool,
    where: str,
) -> Catalogue:
    """Build a catalogue in the order of the ids; sequences are `[num_movies]`.

    The year comes from the titles.
    """
    # TensorFlow Datasets shuffles the movies.
    order, _ = natural_order(movie_ids)
    keys = [movie_ids[i] for i in order]
    matches = [_YEAR.search(titles[i]) for i in order]
    shown = [
        titles[i][: match.start()].strip() if strip_year and match else titles[i].strip()
        for i, match in zip(order, matches, strict=True)
    ]
    years = [float(match[1]) if match else np.nan for match in matches]
    known = tuple(tuple(g for g in genres[i] if g and g != _NO_GENRE) for i in order)
    return Catalogue(
        keys=keys,
        ids=keys if candidate_id == "movie_id" else shown,
        titles=shown,
        attributes={
            "genres": Attribute(values=known),
            "year": Attribute(numbers=np.asarray(years, np.float64)),
        },
        where=where,
    )


def _read_ratings(file: Delimited) -> Interactions:
    user, movie, rating, time = (
        ("userId", "movieId", "rating", "timestamp") if file.names is None else _PLAIN
    )
    table = file.read({user: ID, movie: ID, rating: NUMBER, time: TIME})
    return Interactions.of_columns(
        table.column(user),
        table.column(movie),
        ratings=table.column(rating).to_numpy(),
        timestamps=table.column(time).to_numpy(),
        where=lambda row: f"{file.path}, line {file.line_of(row)}, column {movie!r}",
    )


def _rows(file: Delimited, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for line, fields in file.rows():
        if len(fields) != len(header):
            raise DataError(
                f"{file.path}, line {line} has {len(fields)} fields instead of {len(header)}; "
                "correct or remove it"
            )
        yield line, fields


def _read_users(file: Delimited) -> UserTable:
    header = file.header()
    columns: dict[str, list[str]] = {name: [] for name in header}
    ages = []
    for line, fields in _rows(file, header):
        for name, value in zip(header, fields, strict=True):
            columns[name].append(value.strip())
        try:
            ages.append(float(columns[_AGE][-1]))
        except ValueError:
            raise DataError(
                f"{file.path}, line {line}, column {_AGE!r}: {columns[_AGE][-1]!r} is not a "
                "number; correct or remove the line"
            ) from None
    return user_table(
        columns[_USER],
        ages=ages,
        genders=columns[_GENDER],
        occupations=[
            _OCCUPATIONS[int(text)] if text.isdecimal() and int(text) < len(_OCCUPATIONS) else text
            for text in columns[_OCCUPATION]
        ],
        zips=columns[_ZIP],
        where=str(file.path),
    )


def user_table(
    ids: Sequence[str],
    *,
    ages: Sequence[float],
    genders: Sequence[str],
    occupations: Sequence[str],
    zips: Sequence[str],
    where: str,
) -> UserTable:
    """Build the table of the users, who are described by age, gender, occupation and zip code."""
    texts = {_GENDER: genders, _OCCUPATION: occupations, _ZIP: zips}
    return UserTable(
        ids=ids,
        attributes={
            _AGE: Attribute(numbers=np.asarray(ages, np.float64)),
            **{
                name: Attribute(values=tuple((text,) if text else () for text in column))
                for name, column in texts.items()
            },
        },
        where=where,
    )


def _read_movies(file: Delimited, *, candidate_id: CandidateId, strip_year: bool) -> Catalogue:
    """Read the catalogue in plain Python: it is small, and titles contain colons and quotes."""
    header = file.header()
    required = ("movieId", "title", "genres") if file.names is None else header[:2]
    check_columns(file.path, header, required)
    at_id, at_title = header.index(required[0]), header.index("title")
    ids: dict[str, None] = {}
    titles, genres = [], []
    for line, fields in _rows(file, header):
        movie, title = fields[at_id].strip(), fields[at_title].strip()
        for name, value in ((header[at_id], movie), ("title", title)):
            if not value:
                raise DataError(f"{file.path}, line {line}, column {name!r} is empty; fill it in")
        if movie in ids:
            raise DataError(
                f"{file.path}, line {line}, column {header[at_id]!r}: movie {movie!r} is "
                "listed twice; remove one"
            )
        ids[movie] = None
        titles.append(title)
        genres.append(_genres(dict(zip(header, fields, strict=True))))
    return movie_catalogue(
        tuple(ids),
        titles,
        genres,
        candidate_id=candidate_id,
        strip_year=strip_year,
        where=str(file.path),
    )


def _genres(fields: dict[str, str]) -> tuple[str, ...]:
    if "genres" in fields:
        names = fields["genres"].strip().split("|")
        # The 1m release calls the genre "Children's", the others "Children".
        return tuple("Children" if name == "Children's" else name for name in names)
    return tuple(name for name in _GENRES_100K if fields[name].strip() == "1")


def _no_release(folder: Path) -> str:
    inner = sorted(child for child in folder.iterdir() if child.is_dir() and _layout(child))
    if inner:
        return f"{folder} has no ratings, but {inner[0]} has; give that folder"
    archives = sorted(folder.glob("*.zip"))
    if archives:
        return f"{folder} has no ratings but {archives[0].name}; unzip it and give its folder"
    return (
        f"{folder} has none of ratings.csv, ratings.dat and u.data; "
        "give the folder that holds them, or a CSV or Parquet file"
    )
