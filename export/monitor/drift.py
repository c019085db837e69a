"""Population stability index: how far a distribution has moved."""

from typing import Final

import numpy as np
import numpy.typing as npt

from shortlist.export.evaluation.reference import counts_between
from shortlist.serving.repository.version import Buckets

__all__ = ["LARGE", "LEAST", "MODERATE", "stability_index"]

LEAST: Final = 200  # values on each side; with fewer, chance alone makes an index of 0.1
MODERATE: Final = 0.1  # the usual borders
LARGE: Final = 0.25
_SMOOTHING: Final = 0.5  # values added to each bucket, so that an empty one is finite


def stability_index(reference: Buckets, values: npt.NDArray[np.floating]) -> float | None:
    """Return the population stability index of values against a reference.

    The sum over buckets of (q - p) ln(q / p) with the shares p of the reference and q of the
    values. 0 if they are equally distributed.

    Args:
        reference: Values of before.
        values: Values of now.

    Returns:
        The index; None with fewer than `LEAST` values on a side.
    """
    if min(sum(reference.counts), len(values)) < LEAST:
        return None
    before = np.array(reference.counts) + _SMOOTHING
    now = counts_between(reference.edges, values) + _SMOOTHING
    p, q = before / before.sum(), now / now.sum()
    return float(np.sum((q - p) * np.log(q / p)))
