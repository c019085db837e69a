"""Splits interactions into parts for training, validation and the final metrics."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shortlist.export.config import SplitMethod, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import Hashes, hash_rows

__all__ = ["Split", "configured_split", "make_split"]

Positions = npt.NDArray[np.int64]


def _none() -> Positions:
    return np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Parts of the interactions, as ascending positions int64.

    Attributes:
        training: Interactions to train on.
        validation: Interactions for early stopping and other choices.
        held_out: Interactions for the final metrics only.
    """

    training: Positions
    validation: Positions = field(default_factory=_none)
    held_out: Positions

    @property
    def fitted(self) -> Positions:
        """Training and validation part: the data of the final model."""
        return np.sort(np.concatenate([self.training, self.validation]))


def configured_split(dataset: Dataset, config: TrainConfig) -> Split:
    """Split as configured; see `make_split`."""
    return make_split(
        dataset,
        method=config.split,
        held_out_fraction=config.held_out_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
    )


def make_split(
    dataset: Dataset,
    *,
    method: SplitMethod = "random",
    held_out_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 42,
) -> Split:
    """Split by one of three methods; the same arguments give the same split.

    `random` decides by a hash of seed, user id, candidate id and time: an interaction keeps its
    part when others are added or removed, or their order changes, and exact duplicates are in
    the same part. So the shares are only approximate.

    Args:
        dataset: Interactions to split.
        method: `random` holds out a share of all interactions; `leave_last_out` the last
            interaction of each user with several; `global_time` the latest share of all
            interactions, as for a model in production. The validation part is taken from the
            rest in the same way, so the held-out part does not depend on it.
        held_out_fraction: Share of the interactions; unused by `leave_last_out`.
        validation_fraction: Share of the interactions that are not held out; 0 for no validation
            part. With `leave_last_out`, any value above 0 takes one interaction per user.
        seed: Random seed of `random`; the other methods are deterministic.

    Raises:
        ValueError: There are too few interactions, or the method needs times and they are missing
            or equal.
    """
    total = dataset.num_interactions
    if total < 3:
        raise ValueError(f"{dataset.name} has {total} interactions; a split needs at least 3")
    if method == "random":
        return _random(dataset, held_out_fraction, validation_fraction, seed)
    everything = np.arange(total)
    if method == "leave_last_out":
        _require_order(dataset)
        rest, held_out = _last_of_each(dataset, everything)
        if validation_fraction:
            training, validation = _last_of_each(dataset, rest)
    else:
        rest, held_out = _latest(dataset, everything, held_out_fraction)
        if validation_fraction:
            training, validation = _latest(dataset, rest, validation_fraction)
    if not validation_fraction:
        training, validation = rest, _none()
    return Split(training=training, validation=validation, held_out=held_out)


def _random(
    dataset: Dataset, held_out_fraction: float, validation_fraction: float, seed: int
) -> Split:
    hashes = hash_rows(dataset, seed=seed)
    shares = [held_out_fraction]
    if validation_fraction:
        shares.append(held_out_fraction + (1 - held_out_fraction) * validation_fraction)
    bounds = np.array([min(int(share * 2**64), 2**64 - 1) for share in shares], np.uint64)
    parts = np.zeros(len(hashes), np.int8)
    for bound in bounds:
        parts += hashes >= bound
    if len(np.unique(parts)) <= len(bounds):
        parts = _parts_with_something(dataset, hashes, bounds)
    held_out, *validation, training = (
        np.flatnonzero(parts == part) for part in range(len(bounds) + 1)
    )
    return Split(
        training=training, validation=validation[0] if validation else _none(), held_out=held_out
    )


def _parts_with_something(dataset: Dataset, hashes: Hashes, bounds: Hashes) -> npt.NDArray[np.int8]:
    """Move bounds between few hashes so that no part is empty."""
    distinct = np.unique(hashes)
    if len(distinct) <= len(bounds):
        raise ValueError(
            f"{dataset.name} has {len(distinct)} different interactions; a split into "
            f"{len(bounds) + 1} parts needs as many"
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


def _last_of_each(dataset: Dataset, positions: Positions) -> tuple[Positions, Positions]:
    users = dataset.user_positions[positions]
    order = np.lexsort((positions, _times(dataset)[positions], users))
    users = users[order]
    last = np.append(users[1:] != users[:-1], True)
    alone = last & np.insert(users[1:] != users[:-1], 0, True)
    taken = last & ~alone
    if not taken.any():
        raise ValueError(
            f"in {dataset.name} no user has two interactions left; leave_last_out needs them"
        )
    return np.sort(positions[order[~taken]]), np.sort(positions[order[taken]])


def _times(dataset: Dataset) -> npt.NDArray[np.int64]:
    if dataset.timestamps is None:
        raise ValueError(
            f"{dataset.name} has no timestamps; split at random or name the column that has them"
        )
    return dataset.timestamps
