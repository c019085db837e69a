"""The result of training, the same for all recipes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.towers.ids import IdTower, TableTower
from shortlist.export.towers.rating_head import RatingHead

__all__ = ["EpochRecord", "TrainedModel"]


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean over its batches.
        validation: NDCG@100 on the validation part, seen candidates excluded; None if not
            measured after this epoch.
    """

    epoch: int
    loss: float
    validation: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Two towers, ready to be indexed and served.

    Attributes:
        query_tower: From user ids to embeddings, with one embedding for unknown users.
        query_embeddings: Float32 `[num_users, d]`, in the order of the data set.
        candidate_embeddings: Float32 `[num_candidates, d]`, in the order of the data set.
        epochs: Number of epochs that the final model was trained for.
        records: Epochs of the training that chose this number.
        rating_head: Predicts ratings; None without ratings.
        similar_queries: Float32 `[num_candidates, d]`, query of `similar` for each candidate;
            None if the candidate's own embedding is the query.
    """

    query_tower: IdTower | TableTower
    query_embeddings: npt.NDArray[np.float32]
    candidate_embeddings: npt.NDArray[np.float32]
    epochs: int
    records: Sequence[EpochRecord]
    rating_head: RatingHead | None = None
    similar_queries: npt.NDArray[np.float32] | None = None
