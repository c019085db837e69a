"""Splits interactions into a part to train on and a part to judge the model by."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.data.dataset import Dataset

__all__ = ["Split", "random_split"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which interactions are trained on and which are held out.

    Attributes:
        training: int64, positions of interactions.
        held_out: int64, positions of the others.
    """

    training: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


def random_split(dataset: Dataset, *, held_out_fraction: float, seed: int) -> Split:
    """Holds out a random share of the interactions; the same seed gives the same split.

    Raises:
        ValueError: There are too few interactions for both parts to have one.
    """
    total = dataset.num_interactions
    if total < 2:
        raise ValueError(f"{dataset.name} has {total} interactions; training needs at least 2")
    order = np.random.default_rng(seed).permutation(total)
    held_out = min(max(round(total * held_out_fraction), 1), total - 1)
    return Split(training=np.sort(order[held_out:]), held_out=np.sort(order[:held_out]))
