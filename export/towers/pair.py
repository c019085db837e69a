"""A query tower and a candidate tower of one geometry."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.towers.features import CandidateFeatures

__all__ = ["TowerPair"]

_INITIAL_SCALE = 0.05


class TowerPair(tf.Module):
    """Towers whose inner product is a logit: a cosine over a temperature, or a plain one.

    A user is an embedding, a candidate an embedding plus what its features add.

    Attributes:
        temperature: Of the cosine; None for a plain inner product.
    """

    def __init__(
        self,
        users: tf.Variable,
        candidates: tf.Variable,
        *,
        temperature: float | None = None,
        features: tuple[CandidateFeatures, tf.Variable] | None = None,
        name: str,
    ) -> None:
        """Takes tables; `made` and `of_tables` make them.

        Args:
            users: Float32 `[num_users, d]`.
            candidates: Float32 `[num_candidates, d]`.
            temperature: Of the cosine; None for a plain inner product.
            features: Of the candidates with their weights `[columns, d]`, if any.
            name: Of the module.
        """
        super().__init__(name=name)
        self.temperature = temperature
        self._users = users
        self._candidates = candidates
        self._features = None if features is None else features[0]
        self._weights = None if features is None else features[1]

    @classmethod
    def made(
        cls,
        shape: tuple[int, int, int],
        random: "tf.random.Generator",
        features: CandidateFeatures | None,
        *,
        temperature: float | None,
        name: str,
    ) -> "TowerPair":
        """A pair with random tables.

        Args:
            shape: Users, candidates, dimensions.
            random: Gives the initial values.
            features: Of the candidates, if any.
            temperature: Of the cosine; None for a plain inner product.
            name: Of the module and of its variables.
        """
        num_users, num_candidates, dimensions = shape

        def table(kind: str, rows: int) -> tf.Variable:
            values = random.normal([rows, dimensions], stddev=_INITIAL_SCALE)
            return tf.Variable(values, name=f"{name}_{kind}")

        weighted = None
        users, candidates = table("users", num_users), table("candidates", num_candidates)
        if features is not None:
            zeros = tf.zeros([len(features.names), dimensions])
            weighted = (features, tf.Variable(zeros, name=f"{name}_features"))
        return cls(users, candidates, temperature=temperature, features=weighted, name=name)

    @classmethod
    def of_tables(
        cls,
        users: npt.NDArray[np.float32],
        candidates: npt.NDArray[np.float32],
        *,
        name: str,
        trainable: bool = True,
    ) -> "TowerPair":
        """A pair whose logits are the inner products of two tables, copied."""
        return cls(
            tf.Variable(users, name=f"{name}_users", trainable=trainable),
            tf.Variable(candidates, name=f"{name}_candidates", trainable=trainable),
            name=name,
        )

    def tables(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Users and candidates as they are stored."""
        return tf.identity(self._users).numpy(), tf.identity(self._candidates).numpy()

    def embed_users(self, users: tf.Tensor) -> tf.Tensor:
        """Query embeddings float32 `[batch, d]` of positions int32 `[batch]`."""
        return self._scaled(tf.gather(self._users, users))

    def embed_candidates(self, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """Candidate embeddings float32 `[n, d]` of positions int32 `[n]`; None means all."""
        table = self._candidates
        rows = tf.identity(table) if candidates is None else tf.gather(table, candidates)
        if self._features is not None:
            rows = rows + self._features.project(self._weights, candidates)
        return self._scaled(rows)

    def own_squares(self, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """Squared lengths `[n]` of what candidates have of their own, without features."""
        table = self._candidates
        rows = tf.identity(table) if candidates is None else tf.gather(table, candidates)
        return tf.reduce_sum(rows**2, axis=1)

    def _scaled(self, rows: tf.Tensor) -> tf.Tensor:
        """So that the inner product of a query and a candidate is their logit."""
        if self.temperature is None:
            return rows
        return tf.math.l2_normalize(rows, axis=1) / self.temperature**0.5
