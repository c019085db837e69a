"""The two towers: from an id to an embedding."""

from collections.abc import Sequence

from export._tf import tf

__all__ = ["IdTower"]

# Stands for "not in the vocabulary"; must not be anybody's id, which "[UNK]" could be.
_OUT_OF_VOCABULARY = "\x00out of vocabulary"


class IdTower(tf.keras.layers.Layer):
    """One learned embedding per id, and row 0 for all ids that training never saw."""

    def __init__(self, ids: Sequence[str], *, embedding_dim: int, name: str) -> None:
        super().__init__(name=name)
        self.lookup = tf.keras.layers.StringLookup(
            vocabulary=list(ids), mask_token=None, oov_token=_OUT_OF_VOCABULARY
        )
        self.embedding = tf.keras.layers.Embedding(len(ids) + 1, embedding_dim)
        self.embedding.build(None)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Embeddings float32 `[batch, d]` of string ids `[batch]`."""
        return self.embedding(self.lookup(ids))

    def embed_positions(self, positions: tf.Tensor) -> tf.Tensor:
        """Embeddings of ids given by their positions in the vocabulary, as in training."""
        return self.embedding(positions + 1)

    def positions(self, ids: tf.Tensor) -> tf.Tensor:
        """Int64 `[batch]`: each id's position in the vocabulary, -1 where it is not known."""
        return self.lookup(ids) - 1

    def set_unknown_to_mean(self) -> None:
        """Gives unknown ids the mean embedding.

        Training never touches row 0, so a stranger would get a random list; the mean of
        all users leans to what most of them like.
        """
        rows = self.embedding.embeddings
        rows.assign(tf.concat([tf.reduce_mean(rows[1:], axis=0, keepdims=True), rows[1:]], axis=0))
