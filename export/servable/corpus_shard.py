"""The corpus as a shard sees it: all candidates' embeddings, and which candidates are its own."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.serving.repository.version import Shard

__all__ = ["CorpusShard", "corpus_table"]


def corpus_table(rows: npt.NDArray[np.float32]) -> tf.Variable:
    """Return the index rows `[n, r]` of all candidates, for the shards of a model to share.

    They are float32 whatever the index's `row_type`: every index keeps such rows for the query
    tower, so the queries of a shard equal those of the unsharded servable.
    """
    return tf.Variable(rows, trainable=False, name="corpus")


class CorpusShard(tf.Module):
    """Positions in the corpus, and in the index of a shard that holds some of it.

    Histories, exclusions and kept events name positions in the corpus, whose size is n. The
    index of the shard counts its m candidates from 0.

    Attributes:
        shard: Number and count.
        num_candidates: Size of the corpus, n.
        num_own: Number of candidates of the shard, m.
    """

    def __init__(self, shard: Shard, table: tf.Variable) -> None:
        """Take the table of all candidates; see `corpus_table`."""
        super().__init__()
        self.shard, self._table = shard, table
        self.num_candidates = int(table.shape[0])
        self.num_own = len(range(self.num_candidates)[shard.positions])

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """Return float32 `[m, r]` rows of candidates at positions in the corpus."""
        # Read before gathering, see `LeafRows`.
        return tf.gather(tf.convert_to_tensor(self._table), positions)

    def own(self, positions: tf.Tensor) -> tf.Tensor:
        """Return int32 positions in the index; m for n and for candidates of other shards."""
        here = tf.equal(positions % self.shard.count, self.shard.number)
        here = tf.logical_and(here, positions < self.num_candidates)
        return tf.where(here, positions // self.shard.count, self.num_own)
