"""Item-to-item retrieval: what users have beside a candidate, learned as a second query table.

The candidate embeddings stay as the towers left them, so the index that serves users serves
`similar` as well; only the query side is trained, one embedding per candidate.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.evaluation.similar import in_users_order

__all__ = ["CoInteractions", "co_interactions", "fit_queries"]

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]

_WINDOW = 2  # neighbours on either side in a user's order that make pairs
_MOST_PAIRS = 20_000_000
_BATCH = 1024
_SAMPLE = 4096  # candidates that stand for a larger corpus
_STEPS = 20
_RATE = 0.1
# Pairs that a candidate is taken to have had with what its own embedding is near to.
_PRIOR = 10.0
_TEMPERATURE = 0.07  # of cosines


@dataclass(frozen=True, kw_only=True)
class CoInteractions:
    """Pairs of candidates of one user, near each other in time where the data has times.

    Attributes:
        sources: int32 `[m]`, positions of candidates, ascending.
        targets: int32 `[m]`, positions of what a user had with each.
        counts: float32 `[m]`, how often.
    """

    sources: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    counts: npt.NDArray[np.float32]


def co_interactions(
    dataset: Dataset, part: npt.NDArray[np.int64], *, seed: int, window: int = _WINDOW
) -> CoInteractions:
    """Pairs, in both directions, of a user's interactions at most `window` apart.

    Without times a user's order is drawn at random. Where there are very many
    interactions, only a part of the pairs is drawn.
    """
    random = np.random.default_rng(seed)
    order = in_users_order(dataset, part, random)
    users, candidates = dataset.user_positions[order], dataset.candidate_positions[order]
    share = min(1.0, _MOST_PAIRS / (2.0 * window * max(1, len(order))))
    keys = []
    for gap in range(1, window + 1):
        near = np.flatnonzero(users[gap:] == users[:-gap])
        if share < 1:
            near = near[random.random(len(near)) < share]
        one, other = candidates[near].astype(np.int64), candidates[near + gap].astype(np.int64)
        different = one != other
        one, other = one[different], other[different]
        total = len(dataset.candidate_ids)
        keys += [one * total + other, other * total + one]
    pairs, counts = np.unique(np.concatenate(keys), return_counts=True)
    sources, targets = np.divmod(pairs, len(dataset.candidate_ids))
    return CoInteractions(
        sources=sources.astype(np.int32),
        targets=targets.astype(np.int32),
        counts=counts.astype(np.float32),
    )


def fit_queries(pairs: CoInteractions, candidate_embeddings: Matrix, *, seed: int) -> Matrix:
    """Query embeddings whose softmax over the corpus is nearest to the pairs' targets.

    As the candidate side is fixed, each query is a problem of its own: a few dozen steps of
    Adam from the candidate's own embedding, to which few pairs leave it close.

    Args:
        pairs: What to learn.
        candidate_embeddings: `[n, d]`.
        seed: Of the sample, where the corpus is too large to be scored.

    Returns:
        Float32 `[n, d]`; candidates without pairs keep their own embedding. Where all
        embeddings have one length, queries have it, too.
    """
    if not len(pairs.sources):
        log.warning("no user has two candidates; `similar` goes by the towers")
        return candidate_embeddings
    norms = np.linalg.norm(candidate_embeddings, axis=1)
    length = float(norms.mean())
    cosines = bool(np.allclose(norms, length, rtol=1e-3))
    temperature = _TEMPERATURE if cosines else 1 / length**2
    queries = candidate_embeddings / length
    starts = np.searchsorted(pairs.sources, np.arange(len(queries) + 1))
    fitting = _Fit(pairs, queries.copy(), unit=cosines, temperature=temperature, seed=seed)
    sources = np.flatnonzero(np.diff(starts))
    for first in range(0, len(sources), _BATCH):
        batch = sources[first : first + _BATCH]
        lengths = starts[batch + 1] - starts[batch]
        rows = np.repeat(np.arange(len(batch)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        entries = np.repeat(starts[batch], lengths) + within
        queries[batch] = fitting.fit(batch, rows, pairs.targets[entries], pairs.counts[entries])
    learned, total = len(sources), len(queries)
    log.info("learned %d of %d queries from %d pairs", learned, total, len(pairs.sources))
    return queries * np.float32(length)


class _Fit:
    """Fits the queries of some candidates against all of the corpus, or a sample of it."""

    def __init__(
        self,
        pairs: CoInteractions,
        candidate_embeddings: Matrix,
        *,
        unit: bool,
        temperature: float,
        seed: int,
    ) -> None:
        total = len(candidate_embeddings)
        self._unit = unit
        self._temperature = temperature
        self._embeddings = candidate_embeddings
        others, correction = np.arange(total), np.zeros(total, np.float32)
        if total > _SAMPLE:
            others, correction = _sample(pairs, total, seed)
        # Where each candidate stands among those; -1 for those that are not in the sample.
        self._slots = np.full(total, -1)
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
            rows: `[m]`, into `batch`, ascending: the candidate of each pair.
            targets: `[m]`, the other candidate of each.
            counts: `[m]`, how often.
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
    """Adam on what is added to the candidates' own embeddings, its rate falling to 0."""
    shift, mean, square = tf.zeros_like(own), tf.zeros_like(own), tf.zeros_like(own)
    # A candidate is never an answer to itself.
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
    pairs: CoInteractions, total: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Distinct candidates, half drawn by frequency as targets; and each one's logQ correction."""
    frequency = np.bincount(pairs.targets, pairs.counts, minlength=total)
    chances = 0.5 * frequency / frequency.sum() + 0.5 / total
    drawn = np.random.default_rng(seed).choice(total, _SAMPLE, p=chances)
    others, times = np.unique(drawn, return_counts=True)
    return others, np.log(times / (_SAMPLE * chances[others])).astype(np.float32)
