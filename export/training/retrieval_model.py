"""The retrieval model: two towers whose inner product says what a user wants."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf, tfrs
from shortlist.export.config import ModelConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.towers.ids import IdTower
from shortlist.export.training.in_batch_softmax import in_batch_softmax

__all__ = ["MultitaskModel", "RetrievalModel"]

_EMBED_BATCH = 65536


class RetrievalModel(tfrs.Model):
    """Query tower and candidate tower under TFRS's in-batch softmax."""

    def __init__(self, dataset: Dataset, config: ModelConfig) -> None:
        super().__init__()
        self.query_tower = IdTower(
            dataset.user_ids, embedding_dim=config.embedding_dim, name="query_tower"
        )
        self.candidate_tower = IdTower(
            dataset.candidate_ids, embedding_dim=config.embedding_dim, name="candidate_tower"
        )
        # What `in_batch_softmax` is equal to, and forty times dearer than.
        self.task = tfrs.tasks.Retrieval()
        self._num_users = len(dataset.user_ids)
        self._num_candidates = len(dataset.candidate_ids)

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Loss of one batch of interactions, given by `user` and `candidate` positions."""
        return in_batch_softmax(
            self.query_tower.embed_positions,
            self.candidate_tower.embed_positions,
            features["user"],
            features["candidate"],
            features.get("others"),
        )

    def query_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_users, d]`, in the data set's order of users."""
        return _embed_all(self.query_tower, self._num_users)

    def candidate_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_candidates, d]`, in the data set's order of candidates."""
        return _embed_all(self.candidate_tower, self._num_candidates)


class MultitaskModel(RetrievalModel):
    """The same towers, and a network over both embeddings that predicts the rating."""

    def __init__(
        self,
        dataset: Dataset,
        config: ModelConfig,
        *,
        retrieval_weight: float,
        rating_weight: float,
    ) -> None:
        super().__init__(dataset, config)
        self.rating_network = tf.keras.Sequential(
            [
                tf.keras.layers.Dense(256, activation="relu"),
                tf.keras.layers.Dense(128, activation="relu"),
                tf.keras.layers.Dense(1),
            ]
        )
        self.rating_network.build([None, 2 * config.embedding_dim])
        self.rating_task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())
        self._weights_of_losses = (retrieval_weight, rating_weight)

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Both losses of one batch, each times its weight; needs `rating`, too."""
        queries = self.query_tower.embed_positions(features["user"])
        candidates = self.candidate_tower.embed_positions(features["candidate"])
        predictions = self.rating_network(tf.concat([queries, candidates], axis=1))
        rating_loss = self.rating_task(labels=features["rating"][:, None], predictions=predictions)
        retrieval_weight, rating_weight = self._weights_of_losses
        retrieval_loss = super().compute_loss(features, training)
        return retrieval_weight * retrieval_loss + rating_weight * rating_loss


def _embed_all(tower: IdTower, count: int) -> npt.NDArray[np.float32]:
    """Embeddings of positions 0..count-1, in batches so that a deep tower fits in memory."""
    parts = [
        tower.embed_positions(tf.range(start, min(start + _EMBED_BATCH, count))).numpy()
        for start in range(0, count, _EMBED_BATCH)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)
