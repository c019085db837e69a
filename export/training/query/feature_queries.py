"""Learns what features add to the query of a user of whom nothing else is known.

The query of an interaction is a common vector plus one for each feature of the user and of the
context; its softmax over the corpus should give the interaction's candidate. Features are
dropped at random, so that each is useful alone. A feature is kept only if it helps with users
that were not trained on.
"""

import logging
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.features import FeatureColumns
from shortlist.export.data.pairs import Pairs
from shortlist.export.training.unknown_user import popular_query

__all__ = ["FeatureRows", "fit_feature_queries"]

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

_MOST_INTERACTIONS = 1_000_000  # a sample of more
_MOST_SETS = 20_000
_VALIDATION_SHARE = 0.1  # of the users
_FEWEST_JUDGES = 50  # users that validate; fewer decide nothing
_WHOLE_CORPUS = 50_000  # candidates; a sample of more competes
_SAMPLE = 8_192
_ROWS = 65_536  # embeddings in temporary memory
_SCORES = 500_000  # per step
_JUDGED_STEPS = 4  # as many sets judge as this number of steps trains on
_JUDGED = 100_000  # interactions that decide, at most
_FEWEST_ROWS = 256  # unless their scores are too many
_DROPPED = 0.3  # share of the features
_PRIOR_SPREAD = 0.5  # expected effect of a feature on logits
_RATE = 0.015  # learning rate, times the root of the dimension
_MOST_STEPS = 300
_STEPS_BETWEEN_LOOKS = 10
_PATIENCE = 5
_CERTAINTY = 3.0  # standard errors by which features must help


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureRows:
    """Distinct sets of features, with the interactions that have them.

    Attributes:
        columns: Columns of the features.
        sets: Columns of each set.
        users: int32 `[num_interactions]`, positions of the users.
        owners: int64 `[num_interactions]`, ascending, the set of each interaction.
        candidates: int32 `[num_interactions]`, its candidate.
        weights: float32 `[num_interactions]`; the weights of a user's interactions add up to the
            square root of their number.
        judging: bool `[num_interactions]`, whether its user is one of those that validate.
        seed: Random seed of the training.
    """

    columns: FeatureColumns
    sets: Pairs
    users: npt.NDArray[np.int32]
    owners: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    weights: Vectors
    judging: npt.NDArray[np.bool_]
    seed: int

    @classmethod
    def of_dataset(cls, dataset: Dataset, part: npt.NDArray[np.int64], *, seed: int) -> Self:
        """Group a part of the interactions, or a sample of it, by their features.

        Args:
            dataset: Interactions.
            part: Positions of those to learn from.
            seed: Random seed of the sample, of the users that validate, and of the training.
        """
        columns = FeatureColumns.of_dataset(dataset, part)
        random = np.random.default_rng(seed)
        judging = random.random(len(dataset.user_ids)) < _VALIDATION_SHARE
        counts = dataset.user_counts(part)
        if len(part) > _MOST_INTERACTIONS:
            part = np.sort(random.choice(part, _MOST_INTERACTIONS, replace=False))
        users = dataset.user_positions[part]
        rows = columns.of(dataset, users, part)
        sets, owners = _distinct_rows(rows, len(columns.names))
        order = np.argsort(owners, kind="stable")
        if sets.num_rows > _MOST_SETS:
            some = np.sort(random.choice(sets.num_rows, _MOST_SETS, replace=False))
            number = np.full(sets.num_rows, -1)
            number[some] = np.arange(len(some))
            owners = number[owners]
            order = order[owners[order] >= 0]
            places, cells = sets.cells(some)
            sets = Pairs.by_row(places, sets.columns[cells], num_rows=len(some))
        return cls(
            columns=columns,
            sets=sets,
            users=users[order],
            owners=owners[order],
            candidates=dataset.candidate_positions[part[order]],
            weights=(counts[users[order]] ** -0.5).astype(np.float32),
            judging=judging[users[order]],
            seed=seed,
        )


def _distinct_rows(rows: Pairs, num_columns: int) -> tuple[Pairs, npt.NDArray[np.int64]]:
    """Return the distinct rows, and which of them each row is; columns are in one order."""
    # A sum of random numbers tells a million rows apart, except with a chance of 10^-7.
    keys = np.random.default_rng(0).integers(-(2**63), 2**63, num_columns)
    sums = np.zeros(rows.num_rows, np.int64)
    some = np.flatnonzero(rows.counts)
    if len(some):
        sums[some] = np.add.reduceat(keys[rows.columns], rows.starts[some])
    _, first, owners = np.unique(sums, return_index=True, return_inverse=True)
    places, cells = rows.cells(first)
    return Pairs.by_row(places, rows.columns[cells], num_rows=len(first)), owners


def fit_feature_queries(
    candidate_embeddings: Vectors, rows: FeatureRows
) -> tuple[FeatureColumns, Vectors] | None:
    """Return the columns of useful features with their vectors, float32 `[num_columns, d]`.

    The same arguments give the same result.

    Args:
        candidate_embeddings: `[num_candidates, d]`; the inner product with a query is the logit.
        rows: Interactions by their features.

    Returns:
        Columns and vectors of the features that clearly help with users that were not trained
        on, each alone; None if there are none.
    """
    if not rows.columns.names or len(np.unique(rows.users[rows.judging])) < _FEWEST_JUDGES:
        return None
    fit = _Fit(candidate_embeddings, rows)
    lowest, waited = np.inf, 0
    best = fit.state()
    for step in range(1, _MOST_STEPS + 1):
        fit.step()
        if step % _STEPS_BETWEEN_LOOKS:
            continue
        loss = fit.judge()
        if loss < lowest:
            lowest, waited, best = loss, 0, fit.state()
        elif (waited := waited + 1) == _PATIENCE:
            break
    useful = []
    for name in rows.columns.spans:
        gain, error = fit.gain(best, name)
        log.info("feature %s gains %.4f ± %.4f per interaction", name, gain, error)
        if gain > _CERTAINTY * error:
            useful.append(name)
    if not useful:
        return None
    columns, kept = rows.columns.only(useful)
    return columns, (best[0] / fit.scale)[kept]


class _Fit:
    """Vectors under training, in coordinates in which candidates have variance 1.

    Eager, because there are few steps: tracing would take longer.

    Attributes:
        scale: `[d]`, of these coordinates.
    """

    def __init__(
        self,
        candidate_embeddings: Vectors,
        rows: FeatureRows,
    ) -> None:
        self._rows, self._random = rows, np.random.default_rng(rows.seed)
        spans = [end - first for first, end in rows.columns.spans.values()]
        self._feature_of = np.repeat(np.arange(len(spans)), spans)
        squares = np.einsum("nd,nd->d", candidate_embeddings, candidate_embeddings)
        self.scale = np.sqrt(squares / len(candidate_embeddings) + np.float32(1e-12))
        self._embeddings = candidate_embeddings
        self._targets, self._weights = self._sums(~rows.judging)
        self._judging_targets, self._judging_weights = self._sums(rows.judging)
        self._training = np.flatnonzero(self._weights)
        judging = np.flatnonzero(self._judging_weights)
        dimension = len(self.scale)
        self._vectors = tf.Variable(tf.zeros([len(rows.columns.names), dimension]))
        # Starting from the best common vector, features do not learn what is common.
        training = ~rows.judging
        counts = np.bincount(
            rows.candidates[training], rows.weights[training], minlength=len(candidate_embeddings)
        )
        some = np.sort(np.argsort(-counts, kind="stable")[:_WHOLE_CORPUS])
        popular = popular_query(candidate_embeddings[some], counts[some])
        self._base = tf.Variable(popular * self.scale)
        self._optimizer = tf.keras.optimizers.legacy.Adam(_RATE / dimension**0.5)
        self._penalty = dimension / _PRIOR_SPREAD**2 / float(self._weights.sum())
        self._sampled = len(candidate_embeddings) > _WHOLE_CORPUS
        if self._sampled:
            counts = np.bincount(rows.candidates, minlength=len(candidate_embeddings))
            self._chances = 0.5 * counts / counts.sum() + 0.5 / len(counts)
            self._cumulative = np.cumsum(self._chances)
            self._corpus = self._draw()
        else:
            self._corpus = tf.constant(candidate_embeddings / self.scale), tf.constant(0.0)
        self._per_step = max(_SCORES // len(self._corpus[0]), 16)
        self._judging = self._random.permutation(judging)[: _JUDGED_STEPS * self._per_step]

    def _sums(self, some: npt.NDArray[np.bool_]) -> tuple[Vectors, Vectors]:
        """Weighted sum of the candidates of each set, and the sum of the weights."""
        rows, num_sets = self._rows, self._rows.sets.num_rows
        owners, candidates, weights = rows.owners[some], rows.candidates[some], rows.weights[some]
        sums = np.zeros((num_sets, len(self.scale)), np.float32)
        ends = np.searchsorted(owners, np.arange(num_sets + 1))
        start = 0
        while start < num_sets:  # limits temporary memory
            stop = int(np.searchsorted(ends, ends[start] + _ROWS, side="right")) - 1
            stop = max(stop, start + 1)
            own = slice(ends[start], ends[stop])
            full = start + np.flatnonzero(np.diff(ends[start : stop + 1]))
            if len(full):
                embeddings = self._embeddings[candidates[own]] * weights[own, None]
                sums[full] = np.add.reduceat(embeddings, ends[full] - ends[start], axis=0)
            start = stop
        totals = np.bincount(owners, weights, minlength=num_sets)
        return sums / self.scale, totals.astype(np.float32)

    def step(self) -> None:
        """Take one step on a batch of sets."""
        # Few sets are taken several times, each time without other features.
        some = np.tile(self._training, -(-_FEWEST_ROWS // len(self._training)))
        if len(some) > self._per_step:
            some = self._random.choice(some, self._per_step, replace=False)
        corpus = self._draw() if self._sampled else self._corpus
        chosen, used = self._chosen(some, dropped=_DROPPED)
        total = float(self._weights[some].sum())
        with tf.GradientTape() as tape:
            queries = self._base + tf.matmul(chosen, tf.gather(self._vectors, used))
            losses = _losses(queries, self._targets[some], self._weights[some], corpus)
            loss = tf.reduce_sum(losses) / total
            loss += self._penalty * tf.nn.l2_loss(self._vectors)
        variables = [self._vectors, self._base]
        gradients = tape.gradient(loss, variables)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def state(self) -> tuple[Vectors, Vectors]:
        """Return the vectors `[num_columns, d]` and the common vector `[d]`."""
        return tf.identity(self._vectors).numpy(), tf.identity(self._base).numpy()

    def judge(self) -> float:
        """Return the loss on the sets that validate."""
        some = self._judging
        chosen, used = self._chosen(some, dropped=0.0)
        queries = self._base + tf.matmul(chosen, tf.gather(self._vectors, used))
        weights = self._judging_weights[some]
        losses = _losses(queries, self._judging_targets[some], weights, self._corpus)
        return float(tf.reduce_sum(losses)) / float(weights.sum())

    def gain(self, state: tuple[Vectors, Vectors], feature: str) -> tuple[float, float]:
        """Return what one feature gains over the common vector alone, and its standard error.

        Both are by interaction, with users as the unit of chance.
        """
        (vectors, base), rows = state, self._rows
        chosen, used = self._chosen(self._judging, dropped=0.0)
        first, end = rows.columns.spans[feature]
        own = (used >= first) & (used < end)
        added = chosen[:, own] @ vectors[used[own]]
        candidates, correction = self._corpus
        before, after = (
            tf.reduce_logsumexp(
                tf.matmul(queries, candidates, transpose_b=True) + correction, axis=1
            ).numpy()
            for queries in (base[None], base + added)
        )
        place_of = np.full(rows.sets.num_rows, -1)
        place_of[self._judging] = np.arange(len(self._judging))
        judged = np.flatnonzero(rows.judging & (place_of[rows.owners] >= 0))[:_JUDGED]
        places, weights = place_of[rows.owners[judged]], rows.weights[judged]
        embeddings = self._embeddings[rows.candidates[judged]] / self.scale
        gains = np.einsum("id,id->i", embeddings, added[places]) + (before - after)[places]
        by_user = np.bincount(rows.users[judged], weights * gains)
        total = float(weights.sum())
        return float(by_user.sum()) / total, float(np.sqrt((by_user**2).sum())) / total

    def _chosen(
        self, sets: npt.NDArray[np.int64], *, dropped: float
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Which sets have which of the columns that any of them has, without some at random.

        Returns:
            Ones and zeros float32 `[num_sets, num_used]`, and these columns int64 `[num_used]`.
        """
        places, cells = self._rows.sets.cells(sets)
        columns = self._rows.sets.columns[cells]
        if dropped:
            features = self._feature_of
            kept = self._random.random((len(sets), features[-1] + 1)) >= dropped
            there = kept[places, features[columns]]
            places, columns = places[there], columns[there]
        used, within = np.unique(columns.astype(np.int64), return_inverse=True)
        chosen: Vectors = np.zeros((len(sets), len(used)), np.float32)
        chosen[places, within] = 1.0
        return chosen, used

    def _draw(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw candidates that compete, half by popularity; return them and logQ corrections."""
        draws = self._random.random(_SAMPLE) * self._cumulative[-1]
        distinct, counts = np.unique(
            np.searchsorted(self._cumulative, draws, side="right"), return_counts=True
        )
        correction = np.log(counts / (_SAMPLE * self._chances[distinct]))
        return tf.constant(self._embeddings[distinct] / self.scale), tf.constant(
            correction, tf.float32
        )


def _losses(
    queries: tf.Tensor, targets: Vectors, weights: Vectors, corpus: tuple[tf.Tensor, tf.Tensor]
) -> tf.Tensor:
    """Sum over the interactions of each set of -log softmax, up to a constant."""
    candidates, correction = corpus
    scores = tf.matmul(queries, candidates, transpose_b=True) + correction
    return weights * tf.reduce_logsumexp(scores, axis=1) - tf.reduce_sum(queries * targets, axis=1)
