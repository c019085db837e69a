"""Synthetic data like MovieLens, generated from a seed.

Every movie belongs to a niche (two genres and a decade, with typical words in the titles).
Every user likes a few niches and, within them, popular movies. So there is more to learn than
popularity, and people can judge a recommendation by its title.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.sources._sample_words import GENRES, make_titles

__all__ = ["make_sample"]

FEWEST_PER_USER = 20  # as in MovieLens
CANDIDATES_PER_NICHE = 40
MOST_NICHES = 64
NICHES_OF_INTEREST = 2
# Share of the interactions that follow overall popularity instead of the user's taste.
CROWD = 0.15
FIRST_YEAR, LAST_YEAR = 1950, 1999
FIRST_TIMESTAMP = 946_684_800  # 2000-01-01, so that no movie is rated before its year
DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class _Catalogue:
    """Candidates with the parameters of their interactions; arrays are `[num_candidates]`."""

    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    years: npt.NDArray[np.int64]
    niches: npt.NDArray[np.int64]
    niche_genres: tuple[str, ...]  # main genre of each niche
    appeal: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]


def make_sample(
    *, num_users: int, num_candidates: int, num_interactions: int, seed: int
) -> Dataset:
    """Generate users, movies and ratings; the same for the same arguments.

    Args:
        num_users: Number of users. Each has at least 20 interactions, the most active one many
            times the mean (log-normal).
        num_candidates: Number of candidates. Their popularity follows Zipf's law.
        num_interactions: Approximate number of interactions, within a few percent.
        seed: Random seed.

    Raises:
        DataError: There are too few candidates or interactions for this many users.
    """
    if num_interactions < num_users * FEWEST_PER_USER:
        raise DataError(
            f"sample of {num_interactions} interactions is too small for {num_users} users; "
            f"give at least {FEWEST_PER_USER} interactions per user"
        )
    if num_interactions > num_users * num_candidates / 4:
        raise DataError(
            f"sample of {num_interactions} interactions is too dense for {num_users} users and "
            f"{num_candidates} candidates; give at most a quarter of all pairs"
        )
    random = np.random.default_rng(seed)
    catalogue = _make_catalogue(random, num_candidates)
    taste = _make_taste(random, num_users, catalogue)
    counts = _activity(random, num_users, num_interactions, num_candidates // 2)
    users, candidates = _draw(random, catalogue, taste, counts)
    return Dataset(
        name="sample",
        user_ids=tuple(str(user + 1) for user in range(num_users)),
        candidate_ids=catalogue.titles,
        user_positions=users.astype(np.int32),
        candidate_positions=candidates.astype(np.int32),
        ratings=_rate(random, catalogue, taste, users, candidates),
        timestamps=_times(random, users, counts),
        titles=catalogue.titles,
        attributes={
            "genres": Attribute(values=catalogue.genres),
            "year": Attribute(numbers=catalogue.years.astype(np.float64)),
        },
        user_attributes={"interests": Attribute(values=_interests(catalogue, taste))},
    )


def _interests(
    catalogue: _Catalogue, taste: npt.NDArray[np.float64]
) -> tuple[tuple[str, ...], ...]:
    """Main genres of the niches that each user likes most."""
    best = np.argsort(-taste, axis=1, kind="stable")[:, :NICHES_OF_INTEREST]
    return tuple(
        tuple(dict.fromkeys(catalogue.niche_genres[niche] for niche in row))
        for row in best.tolist()
    )


def _make_catalogue(random: np.random.Generator, num_candidates: int) -> _Catalogue:
    num_niches = int(np.clip(num_candidates // CANDIDATES_PER_NICHE, 4, MOST_NICHES))
    pairs = [(a, b) for a in range(len(GENRES)) for b in range(len(GENRES)) if a != b]
    niche_genres = [pairs[i] for i in random.choice(len(pairs), num_niches, replace=False)]
    niche_years = random.integers(FIRST_YEAR, LAST_YEAR - 9, num_niches)
    niches = np.sort(random.choice(num_niches, num_candidates))
    years = niche_years[niches] + random.integers(0, 10, num_candidates)
    # Not every movie of a niche has its second genre.
    both = random.random(num_candidates) < 0.7
    genres = tuple(
        tuple(GENRES[g] for g in (niche_genres[n] if two else niche_genres[n][:1]))
        for n, two in zip(niches, both, strict=True)
    )
    titles = make_titles(random, niches, [first for first, _ in niche_genres], years)
    order = random.permutation(num_candidates)
    ranks = random.permutation(num_candidates) + 1
    return _Catalogue(
        titles=tuple(titles[i] for i in order),
        genres=tuple(genres[i] for i in order),
        years=years[order],
        niches=niches[order],
        niche_genres=tuple(GENRES[first] for first, _ in niche_genres),
        appeal=np.asarray(1.0 / (ranks + 5.0) ** 0.9, np.float64),
        quality=random.normal(0.0, 0.5, num_candidates),
    )


def _make_taste(
    random: np.random.Generator, num_users: int, catalogue: _Catalogue
) -> npt.NDArray[np.float64]:
    """Probability of each niche for each user, `[num_users, num_niches]`."""
    mass = np.bincount(catalogue.niches, catalogue.appeal, minlength=len(catalogue.niche_genres))
    # Gamma draws with a small shape are sparse: a few niches get most of a user's mass.
    taste = random.standard_gamma(3.0 * mass / mass.sum() + 1e-3, (num_users, mass.size))
    taste[:, mass == 0] = 0.0
    taste += 1e-12 * (mass > 0)
    return np.asarray(taste / taste.sum(axis=1, keepdims=True))


def _activity(
    random: np.random.Generator, num_users: int, num_interactions: int, most: int
) -> npt.NDArray[np.int64]:
    """Number of interactions of each user, `[num_users]`."""
    spread = random.lognormal(0.0, 1.1, num_users)
    extra = num_interactions - FEWEST_PER_USER * num_users
    counts = FEWEST_PER_USER + np.floor(spread / spread.sum() * extra)
    return np.minimum(counts, most).astype(np.int64)


def _draw(
    random: np.random.Generator,
    catalogue: _Catalogue,
    taste: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct pairs of user and candidate, by user, in the order drawn."""
    num_users, num_candidates = len(counts), len(catalogue.appeal)
    by_niche = np.argsort(catalogue.niches, kind="stable")
    cumulative = np.concatenate([[0.0], np.cumsum(catalogue.appeal[by_niche])])
    starts = np.searchsorted(catalogue.niches[by_niche], np.arange(taste.shape[1] + 1))
    # Ascending cumulative probabilities; those of user u are in [u, u + 1].
    steps = (np.cumsum(taste, axis=1) + np.arange(num_users)[:, None]).ravel()
    pairs = np.empty(0, np.int64)
    missing = counts
    for _ in range(20):
        users = np.repeat(np.arange(num_users), 2 * missing)
        niches = np.searchsorted(steps, users + random.random(users.size), side="right")
        niches = np.minimum(niches - users * taste.shape[1], taste.shape[1] - 1)
        low, high = cumulative[starts[niches]], cumulative[starts[niches + 1]]
        crowd = random.random(users.size) < CROWD
        low[crowd], high[crowd] = 0.0, cumulative[-1]
        mass = low + random.random(users.size) * (high - low)
        picks = np.searchsorted(cumulative, mass, side="right") - 1
        drawn = users * num_candidates + by_niche[np.clip(picks, 0, num_candidates - 1)]
        pairs = _first_of_each(np.concatenate([pairs, drawn]))
        pairs = _cut(pairs, pairs // num_candidates, counts)
        missing = counts - np.bincount(pairs // num_candidates, minlength=num_users)
        if not missing.any():
            break
    return pairs // num_candidates, pairs % num_candidates


def _first_of_each(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Distinct values in order of first appearance."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]


def _cut(
    pairs: npt.NDArray[np.int64],
    users: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """First `counts[u]` pairs of each user u, by user."""
    order = np.argsort(users, kind="stable")
    users = users[order]
    rank = np.arange(users.size) - np.searchsorted(users, users)
    return pairs[order][rank < counts[users]]


def _rate(
    random: np.random.Generator,
    catalogue: _Catalogue,
    taste: npt.NDArray[np.float64],
    users: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Ratings float32 in half stars, 0.5 to 5, higher for niches that the user likes."""
    fondness = taste[users, catalogue.niches[candidates]] / taste.max(axis=1)[users]
    mood = random.normal(0.0, 0.4, len(taste))
    noise = random.normal(0.0, 0.6, users.size)
    stars = 3.2 + 0.9 * fondness + catalogue.quality[candidates] + mood[users] + noise
    return np.asarray(np.clip(np.round(stars * 2) / 2, 0.5, 5.0), np.float32)


def _times(
    random: np.random.Generator, users: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Seconds since the epoch, ascending by user; users start at random days of 18 years."""
    starts = FIRST_TIMESTAMP + random.integers(0, 18 * 365 * DAY, len(counts))
    # Minutes between ratings, with occasional breaks of days.
    gaps = random.exponential(60.0, users.size)
    gaps += (random.random(users.size) < 0.05) * random.exponential(9.0 * DAY, users.size)
    total = np.cumsum(gaps)
    first = np.searchsorted(users, np.arange(len(counts)))
    offset = np.where(counts > 0, total[np.minimum(first, users.size - 1)], 0.0)
    return np.asarray(starts[users] + total - offset[users], np.int64)
