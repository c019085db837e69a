"""Types of baselines, which are fitted to histories and score histories."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories

__all__ = ["Fit", "Score", "Settings"]

Settings = Mapping[str, float]

# Scores of histories with some settings: float32 `[num_histories, num_candidates]`, which the
# caller may modify.
Score = Callable[[Histories, Settings], npt.NDArray[np.float32]]

# Fits a baseline to histories. What it returns scores any histories, also of other users.
Fit = Callable[[Histories, Settings], Score]
