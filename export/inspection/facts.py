"""Numbers about a data set: activity, popularity, repeats, times and attributes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Attribute, Dataset

__all__ = [
    "ActivityBand",
    "AttributeFacts",
    "DataProfile",
    "Distribution",
    "Popularity",
    "profile_of",
]

_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # last number of events in each band
_TOP_SHARES = (0.01, 0.1)  # of the candidates
_CURVE = 60  # points of a plot, at most
_PERIODS = 40  # of the plot of interactions over time, at most
_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class ActivityBand:
    """Users or candidates with about as many interactions.

    Attributes:
        fewest: Fewest interactions.
        most: Most interactions.
        members: Number of users or candidates.
        interactions: Number of their interactions.
    """

    fewest: int
    most: int
    members: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.fewest:,}" if self.fewest == self.most else f"{self.fewest:,}–{self.most:,}"


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Distribution of the interactions among users or candidates.

    Attributes:
        median: Median.
        mean: Mean.
        p90: 90th percentile.
        most: Largest number.
        bands: Bands, from few interactions to many; those without members are left out.
    """

    median: float
    mean: float
    p90: float
    most: int
    bands: tuple[ActivityBand, ...]


@dataclass(frozen=True, kw_only=True)
class Popularity:
    """How interactions concentrate on popular candidates.

    Attributes:
        without: Number of candidates without interactions.
        top: Share of the interactions that the most popular candidates have, by their share.
        curve: Place by popularity, from 1, and number of interactions.
    """

    without: int
    top: Mapping[float, float]
    curve: tuple[tuple[int, int], ...]

    @property
    def shares(self) -> str:
        """Shares of the interactions, such as `the top 1% have 12% and the top 10% have 33%`."""
        return " and ".join(
            f"the top {top:.0%} have {share:.0%}" for top, share in self.top.items()
        )


@dataclass(frozen=True, kw_only=True)
class AttributeFacts:
    """An attribute or context.

    Attributes:
        name: Name.
        of: What it describes.
        kind: `number`, or `text` for values to filter by.
        known: Number of candidates, users or interactions with a value.
        total: Number of all of them.
        distinct: Number of different values.
        examples: The most frequent values, or the range of numbers.
    """

    name: str
    of: Literal["candidates", "users", "interactions"]
    kind: Literal["number", "text"]
    known: int
    total: int
    distinct: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataProfile:
    """Numbers about a data set.

    Attributes:
        name: Name of the data set.
        interactions: Number of interactions.
        users: Number of users.
        candidates: Size of the corpus.
        first: Time of the first interaction, in UTC; None without times.
        last: Time of the last one.
        periods: Start of each period as a date, and number of its interactions.
        repeats: Number of interactions whose candidate the user had before.
        duplicates: Number of interactions that repeat user, candidate and time of another.
        per_user: Interactions per user.
        per_candidate: Interactions per candidate that has some.
        popularity: How interactions concentrate on popular candidates.
        ratings: Lowest, mean and highest rating; None without ratings.
        attributes: Attributes of candidates and users, and contexts.
        skipped: Number of interactions that were left out, by fault.
    """

    name: str
    interactions: int
    users: int
    candidates: int
    first: str | None
    last: str | None
    periods: tuple[tuple[str, int], ...]
    repeats: int
    duplicates: int
    per_user: Distribution
    per_candidate: Distribution
    popularity: Popularity
    ratings: tuple[float, float, float] | None
    attributes: tuple[AttributeFacts, ...]
    skipped: Mapping[str, int]


def profile_of(dataset: Dataset) -> DataProfile:
    """Return numbers about a data set."""
    users = np.bincount(dataset.user_positions, minlength=len(dataset.user_ids))
    candidates = np.bincount(dataset.candidate_positions, minlength=len(dataset.candidate_ids))
    times, ratings = dataset.timestamps, dataset.ratings
    first, last = (None, None) if times is None else (_text(times.min()), _text(times.max()))
    return DataProfile(
        name=dataset.name,
        interactions=dataset.num_interactions,
        users=len(dataset.user_ids),
        candidates=len(dataset.candidate_ids),
        first=first,
        last=last,
        periods=() if times is None else _periods(times),
        repeats=_repeats(dataset),
        duplicates=_duplicates(dataset),
        per_user=_distribution(users),
        per_candidate=_distribution(candidates),
        popularity=_popularity(candidates),
        ratings=None
        if ratings is None
        else (float(ratings.min()), float(ratings.mean(dtype=np.float64)), float(ratings.max())),
        attributes=tuple(_attributes(dataset)),
        skipped=dict(dataset.skipped),
    )


def _text(time: np.int64) -> str:
    return str(np.datetime64(int(time), "s")).replace("T", " ")


def _distribution(counts: npt.NDArray[np.int64]) -> Distribution:
    counts = counts[counts > 0]
    bands, least = [], 1
    for most in (*_BOUNDS, int(counts.max())):
        own = counts[(counts >= least) & (counts <= most)]
        if len(own):
            fewest = least if most in _BOUNDS else int(own.min())
            bands.append(
                ActivityBand(
                    fewest=fewest, most=most, members=len(own), interactions=int(own.sum())
                )
            )
        least = max(most + 1, least)
    return Distribution(
        median=float(np.median(counts)),
        mean=float(counts.mean()),
        p90=float(np.quantile(counts, 0.9, method="higher")),
        most=int(counts.max()),
        bands=tuple(bands),
    )


def _popularity(counts: npt.NDArray[np.int64]) -> Popularity:
    ranked = np.sort(counts)[::-1]
    total, known = int(ranked.sum()), int((ranked > 0).sum())
    top = {
        share: float(ranked[: max(round(share * len(ranked)), 1)].sum() / total)
        for share in _TOP_SHARES
    }
    places = np.unique(np.geomspace(1, known, _CURVE).round().astype(int))
    curve = tuple((place, int(ranked[place - 1])) for place in places.tolist())
    return Popularity(without=len(ranked) - known, top=top, curve=curve)


def _periods(times: npt.NDArray[np.int64]) -> tuple[tuple[str, int], ...]:
    """Interactions by day, or by as many whole days as leave few enough periods."""
    days = times // 86_400
    first, span = int(days.min()), int(days.max() - days.min()) + 1
    length = -(-span // _PERIODS)
    counts = np.bincount((days - first) // length)
    return tuple(
        (str(np.datetime64(first + place * length, "D")), count)
        for place, count in enumerate(counts.tolist())
    )


def _repeats(dataset: Dataset) -> int:
    """Number of interactions whose pair of user and candidate was there before."""
    pairs = dataset.user_positions.astype(np.int64) * len(dataset.candidate_ids)
    pairs += dataset.candidate_positions
    pairs.sort()
    return int((pairs[1:] == pairs[:-1]).sum())


def _duplicates(dataset: Dataset) -> int:
    """Number of interactions that equal the one before in user, time and candidate.

    Interactions are in the order of these columns, so equal ones follow each other. Without times
    it is 0: a repeat cannot be told from a copy.
    """
    if dataset.timestamps is None:
        return 0
    columns = (dataset.user_positions, dataset.timestamps, dataset.candidate_positions)
    same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return int(same.sum())


def _attributes(dataset: Dataset) -> Iterator[AttributeFacts]:
    for name, attribute in dataset.attributes.items():
        yield _attribute(name, "candidates", attribute)
    for name, attribute in dataset.user_attributes.items():
        yield _attribute(name, "users", attribute)
    for name, context in dataset.context.items():
        counts = np.bincount(context.codes[context.codes >= 0], minlength=len(context.values))
        order = np.argsort(-counts, kind="stable")[: min(_EXAMPLES, np.count_nonzero(counts))]
        yield AttributeFacts(
            name=name,
            of="interactions",
            kind="text",
            known=int(counts.sum()),
            total=len(context.codes),
            distinct=int(np.count_nonzero(counts)),
            examples=tuple(context.values[place] for place in order.tolist()),
        )


def _attribute(
    name: str, of: Literal["candidates", "users"], attribute: Attribute
) -> AttributeFacts:
    if attribute.numbers is not None:
        known = attribute.numbers[~np.isnan(attribute.numbers)]
        return AttributeFacts(
            name=name,
            of=of,
            kind="number",
            known=len(known),
            total=len(attribute.numbers),
            distinct=len(np.unique(known)),
            examples=(f"{known.min():g} to {known.max():g}",) if len(known) else (),
        )
    assert attribute.values is not None
    counts = Counter(value for values in attribute.values for value in values)
    return AttributeFacts(
        name=name,
        of=of,
        kind="text",
        known=sum(bool(values) for values in attribute.values),
        total=len(attribute.values),
        distinct=len(counts),
        examples=tuple(value for value, _ in counts.most_common(_EXAMPLES)),
    )
