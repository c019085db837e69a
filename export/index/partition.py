"""Partitions of candidates into leaves, trained by ScaNN's own partitioner."""

import uuid
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export._native_log import quiet_native_log
from export._tf import scann_ops, tf
from export.config import IvfConfig

__all__ = ["Partition", "train_partition"]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Leaves, none of them empty.

    Attributes:
        centroids: Float32 `[num_leaves, d]`, the mean of each leaf.
        leaf_of: Int32 `[n]`.
        sizes: Int64 `[num_leaves]`.
    """

    centroids: npt.NDArray[np.float32]
    leaf_of: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]


def train_partition(
    candidate_embeddings: npt.NDArray[np.float32], num_leaves: int, config: IvfConfig
) -> Partition:
    """Divides candidates into at most `num_leaves` leaves of near neighbours.

    ScaNN's k-means needs a few seconds for 4000 leaves of a million candidates; the same in
    NumPy took minutes.

    Args:
        candidate_embeddings: `[n, d]`.
        num_leaves: Wanted; fewer come out where candidates are equal.
        config: Says how long and on how many candidates to train.
    """
    if num_leaves == 1:
        tokens = np.zeros(len(candidate_embeddings), np.int32)
    else:
        tokens = _scann_leaves(candidate_embeddings, num_leaves, config)
    leaf_of = np.unique(tokens, return_inverse=True)[1]
    sizes = np.bincount(leaf_of)
    order = np.argsort(leaf_of, kind="stable")
    starts = np.cumsum(sizes) - sizes
    sums = np.add.reduceat(candidate_embeddings[order], starts, axis=0)
    return Partition(
        centroids=(sums / sizes[:, None]).astype(np.float32),
        leaf_of=leaf_of.astype(np.int32),
        sizes=sizes,
    )


def _scann_leaves(
    candidate_embeddings: npt.NDArray[np.float32], num_leaves: int, config: IvfConfig
) -> npt.NDArray[np.int32]:
    builder = (
        scann_ops.builder(tf.constant(candidate_embeddings), 1, "dot_product")
        .tree(
            num_leaves=num_leaves,
            num_leaves_to_search=1,
            training_sample_size=min(len(candidate_embeddings), config.training_sample),
            training_iterations=config.training_iterations,
            # Tiny leaves would have to be reckoned with: so many are searched that they
            # hold k candidates, whichever they are.
            min_partition_size=max(1, len(candidate_embeddings) // num_leaves // 8),
        )
        .score_brute_force()
    )
    with quiet_native_log():
        searcher = builder.build(shared_name=f"partition-{uuid.uuid4()}")
        tensors = scann_ops.scann_to_tensors(searcher.searcher_handle)
    tf.raw_ops.DestroyResourceOp(resource=searcher.searcher_handle, ignore_lookup_error=True)
    leaf_of: npt.NDArray[np.int32] = tensors.datapoint_to_token.numpy()
    return leaf_of
