"""Splits interactions into parts for training, validation and the final metrics."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shortlist.export.config import SplitMethod, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import Hashes, hash_ids, hash_rows
from shortlist.export.data.histories import time_order

__all__ = ["Split", "configured_split", "make_split"]

Positions = npt.NDArray[np.int64]

# Interactions of the validation part of `leave_last_out`: fewer choose settings by chance.
_ENOUGH = 2000
_MOST_OF_A_USER = 5

# Users whose interactions the times must order for `leave_last_out` to be the default. Three
# interactions are one each to train on, to validate by and to hold out.
_ORDERED_USERS = 100
_ORDERED_INTERACTIONS = 3

_JUDGED_SHARE = 0.2  # of the interactions of a held-out user, as in the literature (Mult-VAE)


def _none() -> Positions:
    return np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Parts of the interactions, as ascending positions int64.

    Attributes:
        method: Method of the split, which also decides what an evaluation asks; see `Questions`.
        reason: What in the data led to the method; empty if it was configured.
        training: Interactions to train on.
        validation: Interactions for early stopping and other choices.
        validation_given: Other interactions of the validation users, which are only in the
            request; with `new_users` only.
        held_out: Interactions for the final metrics only.
        given: Other interactions of the held-out users, which are only in the request; with
            `new_users` only.
    """

    method: SplitMethod = "random"
    reason: str = ""
    training: Positions
    validation: Positions = field(default_factory=_none)
    validation_given: Positions = field(default_factory=_none)
    held_out: Positions
    given: Positions = field(default_factory=_none)

    @property
    def fitted(self) -> Positions:
        """Interactions that the final model is trained on: all but the held-out and given ones."""
        return np.sort(np.concatenate([self.training, self.validation, self.validation_given]))


def configured_split(dataset: Dataset, config: TrainConfig) -> Split:
    """Split as configured, or by the default method for the data; see `make_split`."""
    method, reason = (config.split, "") if config.split else _default_method(dataset)
    split = make_split(
        dataset,
        method=method,
        held_out_fraction=config.held_out_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
    )
    return replace(split, reason=reason)


def _default_method(dataset: Dataset) -> tuple[SplitMethod, str]:
    """Return the default method for the data, and the reason."""
    times, users = dataset.timestamps, dataset.user_positions
    if times is None:
        return "random", "there are no times"
    first = np.zeros(len(dataset.user_ids), np.int64)
    first[users] = times
    several = np.bincount(users, minlength=len(first)) >= _ORDERED_INTERACTIONS
    differs = np.bincount(users, times != first[users], minlength=len(first)) > 0
    total, ordered = int(several.sum()), int((several & differs).sum())
    reason = f"times order the interactions of {ordered:,} users"
    if ordered < _ORDERED_USERS:
        return "random", f"{reason}, fewer than {_ORDERED_USERS}"
    if 2 * ordered < total:
        return "random", f"{reason}, fewer than half of {total:,}"
    return "leave_last_out", reason


def make_split(
    dataset: Dataset,
    *,
    method: SplitMethod = "random",
    held_out_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 42,
) -> Split:
    """Split by one of four methods; the same arguments give the same split.

    `random` decides by a hash of seed, user id, candidate id and time: an interaction keeps its
    part when others are added or removed, or their order changes, and exact duplicates are in
    the same part. So the shares are only approximate. `new_users` decides by such a hash of users,
    and takes the interactions of lowest hash as those that judge.

    Args:
        dataset: Interactions to split.
        method: `random` holds out a share of all interactions; `leave_last_out` the last
            interaction of each user with several; `global_time` the latest share of all
            interactions, as for a model in production; `new_users` a share of the users with
            several, of whose interactions 20% judge and the others are given in the request. The
            validation part is taken from the rest in the same way, so the held-out part does not
            depend on it.
        held_out_fraction: Share of the interactions, or with `new_users` of the users; unused by
            `leave_last_out`.
        validation_fraction: Share of what is not held out; 0 for no validation part. With
            `leave_last_out`, any value above 0 takes the last interaction of each user, or up to 5
            of each of few users, so that there are about 2000.
        seed: Random seed of `random` and `new_users`; the other methods are deterministic.

    Raises:
        ValueError: There are too few interactions, or the method needs times and they are missing
            or equal.
    """
    total = dataset.num_interactions
    if total < 3:
        raise ValueError(f"{dataset.name} has {total} interactions; a split needs at least 3")
    shares = [held_out_fraction]
    if validation_fraction:
        shares.append(held_out_fraction + (1 - held_out_fraction) * validation_fraction)
    if method == "random":
        parts = _parts(hash_rows(dataset, seed=seed), shares, dataset, "different interactions")
        return _split(method, *(np.flatnonzero(parts == part) for part in range(len(shares) + 1)))
    if method == "new_users":
        return _new_users(dataset, shares, seed)
    rest = np.arange(total)
    taken: list[Positions] = []
    for share in [held_out_fraction, *([validation_fraction] if validation_fraction else [])]:
        if method == "leave_last_out":
            _require_order(dataset)
            few = min(-(-_ENOUGH // len(taken[0])), _MOST_OF_A_USER) if taken else 1
            rest, part = _last_of_each(dataset, rest, few)
        else:
            rest, part = _latest(dataset, rest, share)
        taken.append(part)
    return _split(method, *taken, rest)


def _split(method: SplitMethod, held_out: Positions, *others: Positions) -> Split:
    """Make a split of the held-out part, a validation part if there is one, and the rest."""
    *validation, training = others
    return Split(
        method=method,
        training=training,
        validation=validation[0] if validation else _none(),
        held_out=held_out,
    )


def _new_users(dataset: Dataset, shares: list[float], seed: int) -> Split:
    hashes = hash_rows(dataset, seed=seed)
    order = np.lexsort((hashes, dataset.user_positions))
    users = dataset.user_positions[order]
    starts = np.flatnonzero(np.insert(users[1:] != users[:-1], 0, True))
    users, counts = users[starts], np.diff(starts, append=len(users))
    num_judged = np.clip(np.round(_JUDGED_SHARE * counts).astype(int), 1, counts - 1)
    least, bound, most = (hashes[order[starts + i]] for i in (0, num_judged, counts - 1))
    # Exact duplicates are in the same part, so a user needs two different interactions.
    several = users[least < most]
    ids = hash_ids([dataset.user_ids[user] for user in several.tolist()], seed=seed)
    part_of = np.full(len(dataset.user_ids), len(shares))
    part_of[several] = _parts(ids, shares, dataset, "users with two different interactions")
    bounds = np.zeros(len(dataset.user_ids), np.uint64)
    bounds[users] = np.clip(bound, least + np.uint64(1), most)
    parts, judged = part_of[dataset.user_positions], hashes < bounds[dataset.user_positions]
    validation = parts == 1 if len(shares) > 1 else np.zeros_like(judged)
    return Split(
        method="new_users",
        training=np.flatnonzero(parts == len(shares)),
        validation=np.flatnonzero(validation & judged),
        validation_given=np.flatnonzero(validation & ~judged),
        held_out=np.flatnonzero((parts == 0) & judged),
        given=np.flatnonzero((parts == 0) & ~judged),
    )


def _parts(
    hashes: Hashes, shares: list[float], dataset: Dataset, name: str
) -> npt.NDArray[np.int8]:
    """Divide by hashes: part i lies between the shares i - 1 and i; none is empty."""
    bounds = np.array([min(int(share * 2**64), 2**64 - 1) for share in shares], np.uint64)
    parts = np.searchsorted(bounds, hashes, side="right").astype(np.int8)
    if len(np.unique(parts)) <= len(bounds):
        parts = _parts_with_something(hashes, bounds, dataset, name)
    return parts


def _parts_with_something(
    hashes: Hashes, bounds: Hashes, dataset: Dataset, name: str
) -> npt.NDArray[np.int8]:
    """Move bounds between few hashes so that no part is empty."""
    distinct = np.unique(hashes)
    if len(distinct) <= len(bounds):
        raise ValueError(
            f"{dataset.name} has {len(distinct)} {name}; a split into {len(bounds) + 1} parts "
            f"needs at least {len(bounds) + 1}"
        )
    cuts: list[int] = []
    for number, bound in enumerate(bounds):
        least = cuts[-1] + 1 if cuts else 1
        most = len(distinct) - len(bounds) + number
        cuts.append(min(max(int(np.searchsorted(distinct, bound)), least), most))
    return np.searchsorted(distinct[cuts], hashes, side="right").astype(np.int8)


def _latest(dataset: Dataset, positions: Positions, fraction: float) -> tuple[Positions, Positions]:
    """Cut between two distinct times, nearest to the requested share."""
    times = _times(dataset)[positions]
    total = len(times)
    wanted = max(min(round(total * fraction), total - 1), 1)
    at = np.partition(times, total - wanted)[total - wanted]  # the time to cut before or after
    after = int(np.count_nonzero(times > at))
    same = int(np.count_nonzero(times == at))
    possible = [n for n in (after, after + same) if wanted / 2 <= n <= min(wanted * 2, total - 1)]
    if not possible:
        raise ValueError(
            f"{dataset.name} cannot be cut by time into {1 - fraction:.0%} and {fraction:.0%}: "
            f"{same / total:.0%} of the interactions have the time {_as_text(at)}; use --split "
            "random, or a column with finer times"
        )
    nearest = min(possible, key=lambda count: abs(count - wanted))
    late = times > at if nearest == after else times >= at
    return positions[~late], positions[late]


def _require_order(dataset: Dataset) -> None:
    times = _times(dataset)
    if times.min() == times.max():
        raise ValueError(
            f"all interactions of {dataset.name} have the time {_as_text(times[0])}, so none is "
            "a user's last; use --split random, or a column with finer times"
        )


def _as_text(time: np.int64) -> str:
    return f"{np.datetime64(int(time), 's')}Z"


def _last_of_each(
    dataset: Dataset, positions: Positions, count: int
) -> tuple[Positions, Positions]:
    """Take the last interactions of each user who has two: `count`, but at most half of them."""
    _times(dataset)
    ordered = time_order(dataset, positions)
    users = dataset.user_positions[ordered]
    counts = np.bincount(users)
    ends = np.cumsum(counts)
    taken = np.arange(len(ordered)) >= (ends - np.minimum(counts // 2, count))[users]
    if not taken.any():
        raise ValueError(
            f"in {dataset.name} no user has two interactions left; leave_last_out needs them"
        )
    return np.sort(ordered[~taken]), np.sort(ordered[taken])


def _times(dataset: Dataset) -> npt.NDArray[np.int64]:
    if dataset.timestamps is None:
        raise ValueError(
            f"{dataset.name} has no timestamps; split at random or name the column that has them"
        )
    return dataset.timestamps
