"""Transition counts: what followed the last events of a history."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.evaluation.baselines.types import Score, Settings

__all__ = ["fit_transitions"]


def fit_transitions(training: Histories, settings: Settings) -> Score:
    """Count what follows what, and score by the last events.

    A candidate b that comes n events after a adds 1/n to T[a, b], for n up to `window`. With
    p the shares of all events by candidate, the estimate of b after a is
    (T[a, b] + `smoothing` p[b]) / (T[a].sum() + `smoothing`). A history is scored by the sum of
    the estimates after its events, weighted by 0.5^(number of later events / `half_life`).
    """
    from scipy.sparse import csr_matrix

    size = training.num_candidates
    owners, columns = training.owners, training.events.columns
    follows = csr_matrix((size, size), dtype=np.float32)
    for step in range(1, int(settings["window"]) + 1):
        same = owners[:-step] == owners[step:]
        before, after = columns[:-step][same], columns[step:][same]
        weights = np.full(len(before), 1.0 / step, np.float32)
        follows += csr_matrix((weights, (before, after)), shape=(size, size))
    totals = np.asarray(follows.sum(axis=1)).ravel()
    shares = (training.counts() / len(columns)).astype(np.float32)

    def score(histories: Histories, settings: Settings) -> npt.NDArray[np.float32]:
        smoothing = settings["smoothing"]
        query = histories.matrix(settings["half_life"])
        query.data /= (totals + smoothing)[query.indices]
        scores = (query @ follows).toarray()
        scores += smoothing * np.asarray(query.sum(axis=1)) * shares
        return np.asarray(scores, np.float32)

    return score
