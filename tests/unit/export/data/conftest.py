"""Tiny MovieLens releases in each layout, and the real one, if available."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ITEM = "{id}|{title}|01-Jan-1995||http://example.org/{id}|{genres}"
TITLES = {
    "1": "Toy Story (1995)",
    "2": "Café de Flore (2011)",
    "10": "Chasing Amy (1997)",
    "11": "Chasing Amy (1997)",
    "20": "Never: Rated (2001)",
}
GENRES = {
    "1": ("Animation", "Children"),
    "2": ("Drama",),
    "10": ("Comedy",),
    "11": ("Romance", "Comedy"),
    "20": (),
}
RATINGS = (
    ("10", "1", "5", 300),
    ("2", "2", "3", 200),
    ("2", "10", "4", 100),
    ("10", "11", "1", 250),
    ("2", "11", "2", 400),
)
GENRES_100K = (
    "Unknown Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir "
    "Horror Musical Mystery Romance Sci-Fi Thriller War Western"
)

WriteRelease = Callable[[Path], Path]


def write_100k(folder: Path) -> Path:
    names = GENRES_100K.split()
    items = [
        ITEM.format(
            id=movie,
            title=title,
            genres="|".join("1" if name in GENRES[movie] else "0" for name in names),
        )
        for movie, title in TITLES.items()
    ]
    rows = ["\t".join(map(str, row)) for row in RATINGS]
    folder.joinpath("u.item").write_text("\n".join(items) + "\n", encoding="latin-1")
    folder.joinpath("u.data").write_text("\n".join(rows) + "\n", encoding="latin-1")
    return folder


def write_1m(folder: Path) -> Path:
    movies = [
        "::".join([movie, title, "|".join(GENRES[movie]).replace("Children", "Children's")])
        for movie, title in TITLES.items()
    ]
    rows = ["::".join(map(str, row)) for row in RATINGS]
    folder.joinpath("movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")
    folder.joinpath("ratings.dat").write_text("\n".join(rows) + "\n", encoding="latin-1")
    return folder


def write_csv(folder: Path) -> Path:
    movies = ["movieId,title,genres"]
    for movie, title in TITLES.items():
        movies.append(f'{movie},"{title}",{"|".join(GENRES[movie]) or "(no genres listed)"}')
    rows = ["userId,movieId,rating,timestamp"] + [",".join(map(str, row)) for row in RATINGS]
    folder.joinpath("movies.csv").write_bytes(("\r\n".join(movies) + "\r\n").encode())
    folder.joinpath("ratings.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode())
    return folder


@pytest.fixture(params=[write_100k, write_1m, write_csv], ids=["100k", "1m", "csv"])
def write_release(request: pytest.FixtureRequest) -> WriteRelease:
    writer: WriteRelease = request.param
    return writer


@pytest.fixture(scope="session")
def latest_small_zip() -> Path:
    folder = Path(os.environ.get("SHORTLIST_MOVIELENS", ROOT.parent / "shared" / "data"))
    archive = folder / "ml-latest-small.zip"
    if not archive.exists():
        pytest.skip(f"no {archive}; set SHORTLIST_MOVIELENS to the folder that contains it")
    return archive


@pytest.fixture(scope="session")
def latest_small(latest_small_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movielens")
    with zipfile.ZipFile(latest_small_zip) as archive:
        archive.extractall(folder)
    return folder / "ml-latest-small"
