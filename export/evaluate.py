"""Measures a model on the interactions that were held out of training."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.data.dataset import Dataset
from export.split import Split

__all__ = ["KS", "hit_rates"]

KS = (1, 5, 10, 50, 100)

_SCORES_PER_BATCH = 16_000_000  # float32 scores in memory at once, 64 MB


def hit_rates(
    query_embeddings: npt.NDArray[np.float32],
    candidate_embeddings: npt.NDArray[np.float32],
    dataset: Dataset,
    split: Split,
    *,
    ks: Sequence[int] = KS,
) -> dict[str, dict[str, float]]:
    """Exact hit rate@k on the held-out interactions.

    Each held-out interaction is a hit at k when its candidate is among the user's k best
    of the whole corpus (TFRS calls this top-k categorical accuracy). Equal scores go by
    position, as in `tf.math.top_k`.

    Args:
        query_embeddings: `[num_users, d]`.
        candidate_embeddings: `[num_candidates, d]`.
        dataset: The interactions that `split` refers to.
        split: What was trained on and what was held out.
        ks: Cut-offs.

    Returns:
        Hit rates by `hit_rate@k`, twice: under `seen_kept` over all candidates, under
        `seen_excluded` without those the user already has in the training part.
    """
    users = dataset.user_positions[split.held_out]
    candidates = dataset.candidate_positions[split.held_out]
    seen = _SeenCandidates(dataset, split)
    batch = max(1, _SCORES_PER_BATCH // len(candidate_embeddings))
    kept = np.empty(len(users), np.int64)
    excluded = np.empty(len(users), np.int64)
    for start in range(0, len(users), batch):
        rows = slice(start, start + batch)
        scores = query_embeddings[users[rows]] @ candidate_embeddings.T
        kept[rows] = _ranks(scores, candidates[rows])
        excluded[rows] = kept[rows] - seen.count_better(scores, users[rows], candidates[rows])
    return {
        "seen_kept": {f"hit_rate@{k}": float(np.mean(kept < k)) for k in ks},
        "seen_excluded": {f"hit_rate@{k}": float(np.mean(excluded < k)) for k in ks},
    }


def _ranks(
    scores: npt.NDArray[np.float32], candidates: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """How many candidates come before each row's own one."""
    own = np.take_along_axis(scores, candidates[:, None].astype(np.int64), axis=1)
    better = np.count_nonzero(scores > own, axis=1)
    before = np.arange(scores.shape[1])[None, :] < candidates[:, None]
    return better + np.count_nonzero((scores == own) & before, axis=1)


class _SeenCandidates:
    """Each user's candidates of the training part, once each."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        pairs = np.unique(
            np.stack(
                [
                    dataset.user_positions[split.training],
                    dataset.candidate_positions[split.training],
                ],
                axis=1,
            ),
            axis=0,
        )
        self._candidates = pairs[:, 1]
        self._starts = np.searchsorted(pairs[:, 0], np.arange(len(dataset.user_ids) + 1))

    def count_better(
        self,
        scores: npt.NDArray[np.float32],
        users: npt.NDArray[np.int32],
        candidates: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int64]:
        """How many of each row's seen candidates come before the row's own candidate."""
        starts, ends = self._starts[users], self._starts[users + 1]
        counts = ends - starts
        rows = np.repeat(np.arange(len(users)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = self._candidates[np.repeat(starts, counts) + within]
        own = candidates[rows]
        seen_scores, own_scores = scores[rows, columns], scores[rows, own]
        ahead = (seen_scores > own_scores) | ((seen_scores == own_scores) & (columns < own))
        return np.bincount(rows[ahead], minlength=len(users))
