"""A query tower and a candidate tower that belong together."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.towers.features import CandidateFeatures

__all__ = ["TowerPair"]

_INITIAL_SCALE = 0.05


class TowerPair(tf.Module):
    """Towers whose inner product is a logit: a cosine over a temperature, or a plain product.

    A user is an embedding; a candidate is an embedding plus what its features add.

    Attributes:
        temperature: Temperature of the cosine; None for a plain inner product.
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
        """Use existing tables; `random` and `of_tables` create them.

        Args:
            users: Float32 `[num_users, d]`.
            candidates: Float32 `[num_candidates, d]`.
            temperature: Temperature of the cosine; None for a plain inner product.
            features: Candidate features with their weights `[columns, d]`, if any.
            name: Name of the module.
        """
        super().__init__(name=name)
        self.temperature = temperature
        self._users = users
        self._candidates = candidates
        self._features = None if features is None else features[0]
        self._weights = None if features is None else features[1]

    @classmethod
    def random(
        cls,
        shape: tuple[int, int, int],
        generator: "tf.random.Generator",
        features: CandidateFeatures | None,
        *,
        temperature: float | None,
        name: str,
    ) -> "TowerPair":
        """Create a pair with random tables.

        Args:
            shape: Number of users, candidates and dimensions.
            generator: Source of the initial values.
            features: Candidate features, if any.
            temperature: Temperature of the cosine; None for a plain inner product.
            name: Name of the module, and prefix of its variables.
        """
        num_users, num_candidates, dimensions = shape

        def table(kind: str, rows: int) -> tf.Variable:
            values = generator.normal([rows, dimensions], stddev=_INITIAL_SCALE)
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
        """Create a pair whose logits are the inner products of two tables, which are copied."""
        return cls(
            tf.Variable(users, name=f"{name}_users", trainable=trainable),
            tf.Variable(candidates, name=f"{name}_candidates", trainable=trainable),
            name=name,
        )

    def tables(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Tables of the users and of the candidates."""
        return tf.identity(self._users).numpy(), tf.identity(self._candidates).numpy()

    def set_queries(self, rows: npt.NDArray[np.int64], queries: npt.NDArray[np.float32]) -> None:
        """Set the queries `[n, d]` of some users; cosines get the mean length of the others."""
        users = self._users.numpy()
        if self.temperature is not None:
            others = np.delete(users, rows, axis=0)
            length = np.linalg.norm(others, axis=1).mean()
            lengths = np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-9)
            queries = queries * np.float32(length) / lengths
        users[rows] = queries
        self._users.assign(users)

    def embed_users(self, users: tf.Tensor) -> tf.Tensor:
        """Query embeddings float32 `[batch, d]` of positions int32 `[batch]`."""
        return self._scaled(tf.gather(self._users, users))

    def embed_candidates(self, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """Candidate embeddings float32 `[n, d]` of positions int32 `[n]`; None for all."""
        rows = self._candidate_rows(candidates)
        if self._features is not None:
            rows = rows + self._features.project(self._weights, candidates)
        return self._scaled(rows)

    def own_squares(self, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """Squared lengths `[n]` of the candidates' own embeddings, without features."""
        return tf.reduce_sum(self._candidate_rows(candidates) ** 2, axis=1)

    def _candidate_rows(self, candidates: tf.Tensor | None) -> tf.Tensor:
        table = self._candidates
        return tf.identity(table) if candidates is None else tf.gather(table, candidates)

    def _scaled(self, rows: tf.Tensor) -> tf.Tensor:
        """Scale embeddings so that their inner products are logits."""
        if self.temperature is None:
            return rows
        return tf.math.l2_normalize(rows, axis=1) / self.temperature**0.5
