"""Embeddings of new candidates: from content, takers, other candidates, or given."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.data.dataset import Attribute
from shortlist.export.update.newcomers import ContentMap, Takers, newcomer_rows

GENRES = ("drama", "comedy", "horror", "western")


@dataclass(frozen=True)
class World:
    """Candidates whose rows follow from genre and popularity, and users who like one genre."""

    rows: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    queries: npt.NDArray[np.float32]
    genre: npt.NDArray[np.int64]  # of known candidates, then of new ones

    @property
    def attributes(self) -> dict[str, Attribute]:
        return {"genre": Attribute(values=tuple((GENRES[genre],) for genre in self.genre))}


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(1)
    known, new, dimension = 400, 8, 6
    genre = np.concatenate([rng.integers(4, size=known), np.arange(new) % 4])
    counts = rng.geometric(0.05, size=known)
    rows = rng.normal(0, 0.3, size=(known, dimension))
    rows[np.arange(known), genre[:known]] += 2.0
    rows[:, 4] += np.log1p(counts) - 3.0
    queries = rng.normal(0, 0.1, size=(60, dimension))
    queries[np.arange(60), np.arange(60) % 4] += 1.0
    queries[:, 4] += 1.0
    return World(rows.astype(np.float32), counts, queries.astype(np.float32), genre)


def fit(world: World, share: float | None = 0.2) -> ContentMap:
    return ContentMap.fit(
        world.rows,
        world.attributes,
        None,
        counts=world.counts,
        queries=world.queries,
        share=share,
    )


def test_users_prefer_new_candidates_of_their_genre(world: World) -> None:
    scores = world.queries @ fit(world).rows.T
    assert (scores.argmax(axis=1) % 4 == np.arange(60) % 4).all()


def test_a_larger_share_raises_new_candidates_for_all_users(world: World) -> None:
    low, high = fit(world, share=0.1), fit(world, share=1.0)
    assert low.offset < high.offset
    assert (world.queries @ (high.rows - low.rows).T > 0).all()


def test_predicted_rows_take_the_share_of_places_that_was_asked_for(world: World) -> None:
    """As new candidates are the known ones once more, half their places are 50 per user."""
    genre = np.concatenate([world.genre[:400], world.genre[:400]])
    again = World(world.rows, world.counts, world.queries, genre)
    needed = np.sort(world.queries @ world.rows.T, axis=1)[:, -100]
    scores = world.queries @ fit(again, share=0.5).rows.T
    # Ties within a genre, where the rows that content predicts are the same, make steps.
    assert (scores >= needed[:, None]).sum() / 60 == pytest.approx(50, abs=15)


def test_titles_tell_of_candidates_without_attributes(world: World) -> None:
    titles = [f"the {GENRES[genre]}{number % 2}" for number, genre in enumerate(world.genre)]
    content = ContentMap.fit(world.rows, {}, titles, counts=world.counts, queries=world.queries)
    assert content.described.all()
    assert (content.rows[:, :4].argmax(axis=1) == np.arange(8) % 4).all()


def test_takers_outweigh_content_as_they_become_more(world: World) -> None:
    """A new horror that comedy's friends take moves to comedy with their number."""
    content = fit(world)
    comedy = world.queries[1::4]
    gains = []
    for number in (1, 5, 15):
        takers = Takers(queries=comedy[:number], candidates=np.full(number, 2))
        rows = content.with_takers(takers)
        gains.append(float(np.mean(comedy @ (rows[2] - content.rows[2]))))
        np.testing.assert_array_equal(np.delete(rows, 2, 0), np.delete(content.rows, 2, 0))
    assert 0 < gains[0] < gains[1] < gains[2]


def test_each_candidate_follows_from_its_strongest_source(world: World) -> None:
    given = np.full((8, 6), np.nan, np.float32)
    given[0] = 7.0
    like = np.full((8, 6), np.nan, np.float32)
    like[:2] = world.rows[[3, 5]]
    takers = Takers(queries=world.queries[:3], candidates=np.array([0, 1, 2]))
    attributes = world.attributes
    assert attributes["genre"].values is not None
    unknown = Attribute(values=(*attributes["genre"].values[:-1], ("musical",)))
    result = newcomer_rows(
        world.rows,
        {"genre": unknown},
        None,
        counts=world.counts,
        queries=world.queries,
        given=given,
        like=like,
        takers=takers,
    )
    assert result.sources == ("embedding", "like", "interactions", *["content"] * 4, "nothing")
    np.testing.assert_array_equal(result.rows[0], given[0])
    content = fit(world).rows[1]  # half of the way to the other
    np.testing.assert_allclose(result.rows[1], (content + world.rows[5]) / 2, atol=1e-5)
    np.testing.assert_allclose(result.rows[7], world.rows.mean(axis=0), rtol=1e-4)


def test_rows_without_a_number_of_attributes_each_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="one row per candidate"):
        ContentMap.fit(
            world.rows,
            world.attributes,
            ["one"],
            counts=world.counts,
            queries=world.queries,
        )
