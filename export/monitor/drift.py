"""Population stability index: how far a distribution has moved."""

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LARGE", "LEAST", "MODERATE", "stability_index"]

LEAST: Final = 200  # values on each side; with fewer, chance alone makes an index of 0.1
MODERATE: Final = 0.1  # the usual borders
LARGE: Final = 0.25
_BUCKETS: Final = 10
_SMOOTHING: Final = 0.5  # values added to each bucket, so that an empty one is finite


def stability_index(
    reference: npt.NDArray[np.floating], values: npt.NDArray[np.floating]
) -> float | None:
    """Return the population stability index of values against a reference.

    The sum over buckets, tenths of the reference, of (q - p) ln(q / p) with the shares p of the
    reference and q of the values. 0 if they are equally distributed.

    Args:
        reference: Values of before.
        values: Values of now.

    Returns:
        The index; None with fewer than `LEAST` values on a side.
    """
    if min(len(reference), len(values)) < LEAST:
        return None
    edges = np.unique(np.quantile(reference, np.arange(1, _BUCKETS) / _BUCKETS))
    # Values that are equal to an edge belong below it: many lengths are equal.
    before, now = (
        np.bincount(np.searchsorted(edges, part, side="left"), minlength=len(edges) + 1)
        + _SMOOTHING
        for part in (reference, values)
    )
    p, q = before / before.sum(), now / now.sum()
    return float(np.sum((q - p) * np.log(q / p)))
