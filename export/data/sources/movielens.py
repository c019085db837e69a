"""Reads a MovieLens release in any of the three layouts that GroupLens has used."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shortlist.export.data.config import CandidateId, DataError
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.reading.delimited import Dialect
from shortlist.export.data.reading.locations import Location, check_file
from shortlist.export.data.reading.rows import Source, check_columns, open_source
from shortlist.export.data.reading.times import times_of_column
from shortlist.export.data.reading.values import ids_of_column, required_numbers
from shortlist.export.data.sources._assemble import Catalogue, Interactions, assemble, natural_order
from shortlist.export.data.sources.features import UserTable, with_users

__all__ = ["has_release", "movie_catalogue", "read_release", "user_table"]

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


# Names of ratings and movies in each layout.
_FILES = (("ratings.csv", "movies.csv"), ("ratings.dat", "movies.dat"), ("u.data", "u.item"))


def _layout(folder: Path) -> tuple[Path, Path] | None:
    """Files of the ratings and of the movies; None without ratings."""
    for ratings, movies in _FILES:
        if (folder / ratings).exists():
            return folder / ratings, folder / movies
    return None


def _open(path: Path) -> Source:
    """Open a file of a release in the form that its name tells."""
    check_file(str(path))
    if path.suffix == ".csv":
        return open_source([str(path)], Dialect(delimiter=",", encoding="utf-8"))
    delimiter, names = {
        "ratings.dat": ("::", _PLAIN),
        "movies.dat": ("::", (_MOVIE, "title", "genres")),
        "users.dat": ("::", (_USER, _GENDER, _AGE, _OCCUPATION, _ZIP)),
        "u.data": ("\t", _PLAIN),
        "u.item": ("|", _ITEM_COLUMNS),
        "u.user": ("|", (_USER, _AGE, _GENDER, _OCCUPATION, _ZIP)),
    }[path.name]
    dialect = Dialect(delimiter=delimiter, encoding="latin-1", names=names, quoted=False)
    return open_source([Location(address=str(path), kind="text")], dialect)


def has_release(folder: Path) -> bool:
    """Return whether a folder holds a MovieLens release, or points to one below it."""
    if any((folder / name).exists() for pair in _FILES for name in pair):
        return True
    children = list(folder.iterdir())
    return any(child.suffix == ".zip" for child in children if child.name.startswith("ml-")) or any(
        _layout(child) for child in children if child.is_dir()
    )


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
    if not movies.exists():
        raise DataError(
            f"{folder} has {ratings.name} but no {movies.name}; unpack the whole release there"
        )
    catalogue = _read_movies(_open(movies), candidate_id=candidate_id, strip_year=strip_year)
    interactions = _read_ratings(_open(ratings))
    dataset = assemble(name or folder.resolve().name, interactions, catalogue)
    for users in (folder / "users.dat", folder / "u.user"):
        if users.exists():
            return with_users(dataset, _read_users(_open(users)))
    return dataset


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


def _read_ratings(source: Source) -> Interactions:
    user, movie, rating, time = (
        ("userId", "movieId", "rating", "timestamp") if "userId" in source.columns else _PLAIN
    )
    rows = source.read((user, movie, rating, time), ids=(user, movie))
    users, movies = ids_of_column(rows, user), ids_of_column(rows, movie)
    ratings = required_numbers(rows, rating)
    times = times_of_column(rows, time)
    rows.faults.check()
    return Interactions(
        users=users.values,
        user_codes=users.codes,
        keys=movies.values,
        key_codes=movies.codes,
        ratings=ratings.astype(np.float32),
        timestamps=times,
        where=lambda row: f"{source.name}, {rows.faults.place(row)}, column {movie!r}",
    )


def _read_users(source: Source) -> UserTable:
    rows = source.read(source.columns, ids=[_USER], exact=True)
    ids, ages = ids_of_column(rows, _USER), required_numbers(rows, _AGE)
    rows.faults.check()
    genders, occupations, zips = (
        [text or "" for text in rows.columns.column(name).to_pylist()]
        for name in (_GENDER, _OCCUPATION, _ZIP)
    )
    return user_table(
        ids.texts(),
        ages=ages.tolist(),
        genders=genders,
        occupations=[
            _OCCUPATIONS[int(text)] if text.isdecimal() and int(text) < len(_OCCUPATIONS) else text
            for text in occupations
        ],
        zips=zips,
        where=source.name,
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


def _read_movies(source: Source, *, candidate_id: CandidateId, strip_year: bool) -> Catalogue:
    header = source.columns
    required = header[:2] if header[0] == _MOVIE else ("movieId", "title", "genres")
    check_columns(source.name, header, required)
    rows = source.read(header, ids=[required[0]], exact=True)
    ids = ids_of_column(rows, required[0])
    titles = [(title or "").strip() for title in rows.columns.column("title").to_pylist()]
    first, repeated = np.unique(ids.codes, return_index=True)[1], np.ones(len(rows), np.bool_)
    repeated[first] = False
    rows.faults.add(
        ", column 'title' is empty",
        np.flatnonzero([not title for title in titles]),
        "fill it in",
    )
    if repeated.any():
        movie = ids.values[ids.codes[int(repeated.argmax())]]
        rows.faults.add(
            f", column {required[0]!r}: movie {movie!r} is listed twice",
            np.flatnonzero(repeated),
            "remove one",
        )
    rows.faults.check()
    return movie_catalogue(
        ids.texts(),
        titles,
        [_genres(row) for row in rows.columns.drop_columns([required[0]]).to_pylist()],
        candidate_id=candidate_id,
        strip_year=strip_year,
        where=source.name,
    )


def _genres(fields: dict[str, str | None]) -> tuple[str, ...]:
    if "genres" in fields:
        names = (fields["genres"] or "").strip().split("|")
        # The 1m release calls the genre "Children's", the others "Children".
        return tuple("Children" if name == "Children's" else name for name in names)
    return tuple(name for name in _GENRES_100K if fields[name] == "1")


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
