"""Search without excluded or filtered-out candidates, with any index.

The restriction is exact: no excluded candidate appears, and a row is short only if fewer
than k candidates remain. Among those an approximate index stays approximate.
"""

import math

from shortlist.export._tf import tf
from shortlist.export.index.base import CandidateIndex, best_first

__all__ = ["search_excluding", "search_filtered"]

# Up to this many remaining candidates are all scored: at 64 dimensions that takes a few
# milliseconds, and an approximate index would find few of them.
_SCORE_ALL_UP_TO = 20_000


def search_excluding(
    index: CandidateIndex, query_embeddings: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the best candidates of each query that its row does not exclude.

    Args:
        index: Index over n candidates.
        query_embeddings: Float32 `[batch, d]`.
        k: Answers per query, in 1..n.
        excluded: Int32 `[batch, e]` positions, repeated or not; n excludes nothing.

    Returns:
        As `CandidateIndex.search`: short rows end in score -inf and position n.
    """
    excluded = _ordered(index, excluded)
    scores, positions = index.search(query_embeddings, _over_fetch(index, k, excluded))
    scores, positions = _drop(index, scores, positions, excluded, k)
    if index.exact:
        return scores, positions
    everything = tf.range(index.num_candidates)
    return tf.cond(
        tf.reduce_any(positions == index.num_candidates),
        lambda: _score_each(index, query_embeddings, k, everything, excluded),
        lambda: (scores, positions),
    )


def search_filtered(
    index: CandidateIndex,
    query_embeddings: tf.Tensor,
    k: tf.Tensor,
    excluded: tf.Tensor,
    allowed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the best candidates that a filter allows, otherwise as `search_excluding`.

    Args:
        index: Index over n candidates.
        query_embeddings: Float32 `[batch, d]`.
        k: Answers per query, in 1..n.
        excluded: Int32 `[batch, e]` positions, repeated or not; n excludes nothing.
        allowed: Bool `[n]`, the same for the whole batch.
    """
    remaining = tf.cast(tf.where(allowed)[:, 0], tf.int32)
    excluded = _ordered(index, excluded)

    def each() -> tuple[tf.Tensor, tf.Tensor]:
        return _score_each(index, query_embeddings, k, remaining, excluded)

    def probe() -> tuple[tf.Tensor, tf.Tensor]:
        fetch = _over_fetch(index, k, excluded)
        scores, positions = index.search_allowed(query_embeddings, fetch, allowed)
        scores, positions = _drop(index, scores, positions, excluded, k)
        short = tf.reduce_any(positions == index.num_candidates)
        return tf.cond(short, each, lambda: (scores, positions))

    return tf.cond(tf.size(remaining) <= _SCORE_ALL_UP_TO, each, probe)


def _ordered(index: CandidateIndex, excluded: tf.Tensor) -> tf.Tensor:
    """Sort the excluded positions of each row, and add n, so that there is always one."""
    return tf.sort(tf.pad(excluded, [[0, 0], [0, 1]], constant_values=index.num_candidates))


def _over_fetch(index: CandidateIndex, k: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Return how many answers to fetch so that k remain after any exclusions."""
    distinct = tf.cast(excluded[:, 1:] != excluded[:, :-1], tf.int32)  # n is the last value
    most = tf.reduce_max(tf.concat([[0], tf.reduce_sum(distinct, axis=1)], axis=0))
    return tf.minimum(k + most, index.num_candidates)


def _drop(
    index: CandidateIndex,
    scores: tf.Tensor,
    positions: tf.Tensor,
    excluded: tf.Tensor,
    k: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Remove `_ordered` excluded positions from each row and cut or pad it to k."""
    padding = [[0, 0], [0, tf.maximum(k - tf.shape(scores)[1], 0)]]
    scores = tf.pad(scores, padding, constant_values=-math.inf)
    positions = tf.pad(positions, padding, constant_values=index.num_candidates)
    nearest = tf.gather(excluded, tf.searchsorted(excluded, positions), batch_dims=1)
    gone = tf.logical_or(nearest == positions, positions == index.num_candidates)
    scores = tf.where(gone, -math.inf, scores)
    positions = tf.where(gone, index.num_candidates, positions)
    return best_first(scores, positions, k)


def _score_each(
    index: CandidateIndex,
    query_embeddings: tf.Tensor,
    k: tf.Tensor,
    remaining: tf.Tensor,
    excluded: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Score all candidates at ascending positions `remaining`, and no others."""
    rows = index.embeddings(remaining)
    scores = tf.matmul(query_embeddings, rows, transpose_b=True)
    fetch = tf.minimum(_over_fetch(index, k, excluded), tf.size(remaining))
    scores, columns = tf.math.top_k(scores, k=fetch)
    return _drop(index, scores, tf.gather(remaining, columns), excluded, k)
