"""Splits interactions into parts for training, validation and the final metrics."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shortlist.export.config import SplitMethod, TrainConfig
from shortlist.export.data.dataset import Dataset

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
        ValueError: There are too few interactions, or the method needs times and there are none.
    """
    total = dataset.num_interactions
    if total < 3:
        raise ValueError(f"{dataset.name} has {total} interactions; a split needs at least 3")
    everything = np.arange(total)
    if method == "random":
        random = np.random.default_rng(seed)
        rest, held_out = _random(everything, held_out_fraction, random)
        if validation_fraction:
            training, validation = _random(rest, validation_fraction, random)
    elif method == "leave_last_out":
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


def _count(total: int, fraction: float) -> int:
    return min(max(round(total * fraction), 1), total - 1)


def _random(
    positions: Positions, fraction: float, random: np.random.Generator
) -> tuple[Positions, Positions]:
    order = random.permutation(positions)
    count = _count(len(positions), fraction)
    return np.sort(order[count:]), np.sort(order[:count])


def _latest(dataset: Dataset, positions: Positions, fraction: float) -> tuple[Positions, Positions]:
    times = _times(dataset)[positions]
    order = positions[np.argsort(times, kind="stable")]
    count = _count(len(positions), fraction)
    return np.sort(order[:-count]), np.sort(order[-count:])


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
