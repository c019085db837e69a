"""Queries of `similar`, learned from candidates that the same users have.

The candidate embeddings of the towers do not change, so `similar` uses the same index as
users do. Only the query side is trained, one embedding per candidate.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs

__all__ = ["CoInteractions", "co_interactions", "fit_queries"]

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]

_WINDOW = 2  # neighbours on either side, in the order of a user, that form pairs
_MOST_PAIRS = 20_000_000
_BATCH = 1024
_SAMPLE = 4096  # candidates that represent a larger corpus
_STEPS = 20
_RATE = 0.1
_PRIOR = 10.0  # weight of a candidate's own embedding, in pairs
_TEMPERATURE = 0.07  # of cosines


@dataclass(frozen=True, kw_only=True)
class CoInteractions:
    """Pairs of candidates that the same users have.

    Attributes:
        targets: The other candidates by candidate.
        counts: float32 `[m]`, number of occurrences of each pair.
    """

    targets: Pairs
    counts: npt.NDArray[np.float32]


def co_interactions(
    dataset: Dataset,
    part: npt.NDArray[np.int64],
    *,
    seed: int,
    window: int = _WINDOW,
    most_pairs: int = _MOST_PAIRS,
) -> CoInteractions:
    """Pairs, in both directions, of a user's interactions at most `window` apart.

    Args:
        dataset: Interactions; without times, their order is random within each user.
        part: Positions of the interactions to use.
        seed: Random seed for the order and the sample.
        window: Largest distance in the order of a user.
        most_pairs: Approximate number of pairs; of more pairs, a random sample is used.
    """
    random = np.random.default_rng(seed)
    order = dataset.in_user_order(part, random)
    users, candidates = dataset.user_positions[order], dataset.candidate_positions[order]
    share = min(1.0, most_pairs / (2.0 * window * max(1, len(order))))
    total = len(dataset.candidate_ids)
    keys = []
    for gap in range(1, window + 1):
        near = np.flatnonzero(users[gap:] == users[:-gap])
        if share < 1:
            near = near[random.random(len(near)) < share]
        first, second = candidates[near].astype(np.int64), candidates[near + gap].astype(np.int64)
        different = first != second
        first, second = first[different], second[different]
        keys += [first * total + second, second * total + first]
    pairs, counts = np.unique(np.concatenate(keys), return_counts=True)
    sources, targets = np.divmod(pairs, total)
    return CoInteractions(
        targets=Pairs.by_row(sources, targets, num_rows=total), counts=counts.astype(np.float32)
    )


def fit_queries(
    pairs: CoInteractions, candidate_embeddings: Matrix, *, seed: int, sample_size: int = _SAMPLE
) -> Matrix:
    """Query embeddings whose softmax over the corpus is closest to the targets of the pairs.

    The candidate side is fixed, so each query is a separate problem: a few dozen steps of
    Adam from the candidate's own embedding, which stays close if there are few pairs.

    Args:
        pairs: Pairs to learn.
        candidate_embeddings: `[n, d]`.
        seed: Random seed for the sample.
        sample_size: Largest corpus that is scored completely; a sample of this size
            represents a larger one.

    Returns:
        Float32 `[n, d]`; candidates without pairs keep their own embedding. If all embeddings
        have the same length, so do the queries.
    """
    sources = np.flatnonzero(pairs.targets.counts)
    if not len(sources):
        log.warning("no user has two candidates; `similar` falls back to the towers")
        return candidate_embeddings
    norms = np.linalg.norm(candidate_embeddings, axis=1)
    length = float(norms.mean())
    cosines = bool(np.allclose(norms, length, rtol=1e-3))
    temperature = _TEMPERATURE if cosines else 1 / length**2
    queries = candidate_embeddings / length
    others, correction = np.arange(len(queries)), np.zeros(len(queries), np.float32)
    if len(queries) > sample_size:
        others, correction = _sample(pairs, len(queries), seed, sample_size)
    fitting = _Fit(queries.copy(), others, correction, unit=cosines, temperature=temperature)
    for first in range(0, len(sources), _BATCH):
        batch = sources[first : first + _BATCH]
        rows, entries = pairs.targets.cells(batch)
        targets, counts = pairs.targets.columns[entries], pairs.counts[entries]
        queries[batch] = fitting.fit(batch, rows, targets, counts)
    log.info(
        "learned %d of %d queries from %d pairs", len(sources), len(queries), len(pairs.counts)
    )
    return queries * np.float32(length)


class _Fit:
    """Fits the queries of some candidates against the corpus or a sample of it."""

    def __init__(
        self,
        candidate_embeddings: Matrix,
        others: npt.NDArray[np.int64],
        correction: npt.NDArray[np.float32],
        *,
        unit: bool,
        temperature: float,
    ) -> None:
        self._unit = unit
        self._temperature = temperature
        self._embeddings = candidate_embeddings
        # Place of each candidate in `others`; -1 if it is not in the sample.
        self._slots = np.full(len(candidate_embeddings), -1)
        self._slots[others] = np.arange(len(others))
        self._others = tf.constant(candidate_embeddings[others])
        self._correction = tf.constant(correction)

    def fit(
        self,
        batch: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
        counts: npt.NDArray[np.float32],
    ) -> Matrix:
        """Queries float32 `[len(batch), d]`.

        Args:
            batch: Positions of the candidates.
            rows: `[m]`, place in `batch` of the first candidate of each pair, ascending.
            targets: `[m]`, the second candidate of each pair.
            counts: `[m]`, number of occurrences.
        """
        own_slots = self._slots[batch]
        sampled = np.flatnonzero(own_slots >= 0)
        totals = np.bincount(rows, counts, minlength=len(batch))
        fitted: Matrix = _descend(
            self._others,
            self._correction,
            tf.constant(self._temperature, tf.float32),
            tf.constant(self._unit),
            tf.constant(self._embeddings[batch]),
            tf.constant(np.stack([sampled, own_slots[sampled]], axis=1)),
            tf.constant(rows),
            tf.constant(self._embeddings[targets]),
            tf.constant((counts / totals[rows]).astype(np.float32)),
            tf.constant((_PRIOR / totals).astype(np.float32)),
        ).numpy()
        return fitted


def _normal(queries: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
    return tf.where(unit, tf.math.l2_normalize(queries, axis=1), queries)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([], tf.bool),
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None, 2], tf.int64),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None], tf.float32),
    ]
)
def _descend(
    others: tf.Tensor,
    correction: tf.Tensor,
    temperature: tf.Tensor,
    unit: tf.Tensor,
    own: tf.Tensor,
    own_places: tf.Tensor,
    rows: tf.Tensor,
    targets: tf.Tensor,
    shares: tf.Tensor,
    priors: tf.Tensor,
) -> tf.Tensor:
    """Adam on the difference to the candidates' own embeddings, with a decreasing rate."""
    shift, mean, square = tf.zeros_like(own), tf.zeros_like(own), tf.zeros_like(own)
    # A candidate is never similar to itself.
    itself = tf.fill(tf.shape(own_places)[:1], -1e9)
    shape = tf.stack([tf.shape(own, tf.int64)[0], tf.size(correction, tf.int64)])
    excluded = tf.scatter_nd(own_places, itself, shape) + correction
    for number in tf.range(1, _STEPS + 1):
        step = tf.cast(number, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(shift)
            queries = _normal(own + shift, unit) / temperature
            positive = tf.reduce_sum(tf.gather(queries, rows) * targets, axis=1) * shares
            scores = tf.matmul(queries, others, transpose_b=True) + excluded
            losses = tf.reduce_logsumexp(scores, axis=1)
            drawn = 0.5 * priors * tf.reduce_sum(shift**2, axis=1)
            loss = tf.reduce_sum(losses + drawn) - tf.reduce_sum(positive)
        gradient = tape.gradient(loss, shift)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        rate = _RATE * (1.0 - (step - 1.0) / _STEPS)
        unbiased = mean / (1.0 - 0.9**step)
        shift -= rate * unbiased / (tf.sqrt(square / (1.0 - 0.99**step)) + 1e-8)
    return _normal(own + shift, unit)


def _sample(
    pairs: CoInteractions, total: int, seed: int, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Distinct candidates, half of them drawn by frequency as targets; and logQ corrections."""
    frequency = np.bincount(pairs.targets.columns, pairs.counts, minlength=total)
    chances = 0.5 * frequency / frequency.sum() + 0.5 / total
    drawn = np.random.default_rng(seed).choice(total, size, p=chances)
    others, times = np.unique(drawn, return_counts=True)
    return others, np.log(times / (size * chances[others])).astype(np.float32)
