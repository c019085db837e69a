"""ScaNN with its TensorFlow ops."""

import logging
import math
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import scann_ops, tf
from shortlist.export.config import ScannConfig
from shortlist.export.index.base import CandidateIndex, Effort, best_first, check_candidates

__all__ = ["ScannIndex"]

log = logging.getLogger(__name__)

# ScaNN's own rules of thumb, from its docs/algorithms.md: brute force below 20,000
# candidates, hashing and reordering below 100,000, partitions from there on.
_HASH_FROM = 20_000
_TREE_FROM = 100_000
_TRAINING_SAMPLE = 250_000
_REORDERING_CANDIDATES = 300
_TIE_MARGIN = 8
_STDERR = 2


class ScannIndex(CandidateIndex):
    """Partitions, hashes and reorders candidates if the corpus is large enough for it.

    ScaNN's builder makes it, as in TFRS's layer. But that layer always partitions and
    hashes, which on a small corpus is slower than brute force and loses recall.
    """

    index_name = "scann"

    def __init__(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        candidate_ids: Sequence[str],
        config: ScannConfig,
    ) -> None:
        super().__init__()
        check_candidates(candidate_embeddings, candidate_ids)
        self.num_candidates, self.dimension = candidate_embeddings.shape
        layout = _choose(self.num_candidates, config)
        self._layout = layout
        # Each index needs its own resource name: with TensorFlow's default each signature
        # would build its own searcher, and two versions might share one.
        self._ops = scann_ops()
        self._shared_name = f"scann-{uuid.uuid4()}"
        with _quiet_native_log():
            searcher = _build(candidate_embeddings, layout, f"build-{self._shared_name}")
            self._state = searcher.serialize_to_module()
        tf.raw_ops.DestroyResourceOp(resource=searcher.searcher_handle, ignore_lookup_error=True)
        self.set_effort(
            Effort(
                num_leaves_to_search=layout.num_leaves_to_search,
                num_reordering_candidates=layout.num_reordering_candidates,
            )
        )

    def set_effort(self, effort: Effort) -> None:
        """Change the effort of `search`."""
        leaves, layout = self._layout.num_leaves, self._layout
        self.effort = Effort(
            num_leaves_to_search=(
                None if leaves is None else min(effort.num_leaves_to_search or 1, leaves)
            ),
            num_reordering_candidates=(
                None if layout.scores_exactly else effort.num_reordering_candidates
            ),
        )
        self.exact = layout.scores_exactly and self.effort.num_leaves_to_search == leaves

    def efforts(self) -> list[Effort]:
        """Return the efforts worth trying, lowest first."""
        num_leaves = self._layout.num_leaves
        leaves: list[int | None] = [None]
        if num_leaves is not None:
            shares = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.4, 1.0)
            leaves = [*sorted({max(1, round(share * num_leaves)) for share in shares})]
        reordered = [None] if self._layout.scores_exactly else [50, 100, 200, 400, 800]
        return [
            Effort(num_leaves_to_search=count, num_reordering_candidates=candidates)
            for count in leaves
            for candidates in reordered
        ]

    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor, effort: Effort | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best candidates of each query."""
        k = tf.convert_to_tensor(k, tf.int32)
        n = self.num_candidates

        def fetch(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            scores, positions = self._search(query_embeddings, count, effort or self.effort)
            return count, *best_first(scores, positions, count)

        def cut_in_a_tie(count: tf.Tensor, scores: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
            """Return whether a candidate beyond `count` may equal the k-th answer."""
            tied = tf.logical_and(scores[:, k - 1] == scores[:, -1], positions[:, -1] < n)
            return tf.logical_and(count < n, tf.reduce_any(tied))

        # ScaNN keeps any of equal scores; a few more answers usually show the whole tie.
        results = tf.while_loop(
            cut_in_a_tie,
            lambda count, scores, positions: fetch(tf.minimum(4 * count, n)),
            fetch(tf.minimum(k + _TIE_MARGIN, n)),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, None]),
            ),
        )
        return results[1][:, :k], results[2][:, :k]

    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best allowed candidates; the fewer are allowed, the more it searches."""
        n = self.num_candidates
        factor = tf.cast(n / tf.maximum(tf.math.count_nonzero(allowed), 1), tf.float32)
        fetch = tf.cast(tf.math.ceil(tf.cast(k, tf.float32) * factor * 1.25), tf.int32) + 16
        fetch = tf.maximum(tf.minimum(fetch, n), k)
        leaves, reordered = self.effort
        effort = Effort(
            num_leaves_to_search=None if leaves is None else _times(leaves, factor),
            num_reordering_candidates=None if reordered is None else _times(reordered, factor),
        )
        scores, positions = self._search(query_embeddings, fetch, effort)
        allows = tf.gather(tf.pad(allowed, [[0, 1]]), positions)
        scores = tf.where(allows, scores, -math.inf)
        return best_first(scores, tf.where(allows, positions, n), k)

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """Return the embeddings of some candidates, which ScaNN keeps for reordering."""
        # Read first: gathering from the variable itself makes every later search copy it.
        rows = tf.gather(self._state.dataset.read_value(), positions)
        return tf.ensure_shape(rows, [None, self.dimension])

    def release(self) -> None:
        """Destroy the searcher, which otherwise lives as long as TensorFlow."""
        tf.raw_ops.DestroyResourceOp(resource=self._handle(), ignore_lookup_error=True)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters in effect."""
        return {
            "scoring": "brute_force" if self._layout.scores_exactly else "asymmetric_hashing",
            "num_leaves": self._layout.num_leaves,
            **self.effort._asdict(),
        }

    def _search(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, effort: Effort
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return answers in ScaNN's order, padded to k."""
        leaves, reordered = effort
        positions, scores = self._ops.scann_search_batched(
            self._handle(),
            query_embeddings,
            k,
            -1 if reordered is None else tf.maximum(k, reordered),
            -1 if leaves is None else tf.minimum(leaves, self._layout.num_leaves or 1),
            True,
        )
        # ScaNN fills short rows with NaN and drops columns that no row fills.
        missing = tf.math.is_nan(scores)
        scores = tf.where(missing, -math.inf, scores)
        positions = tf.where(missing, self.num_candidates, positions)
        padding = [[0, 0], [0, k - tf.shape(scores)[1]]]
        scores = tf.pad(scores, padding, constant_values=-math.inf)
        positions = tf.pad(positions, padding, constant_values=self.num_candidates)
        return scores, positions

    def _handle(self) -> tf.Tensor:
        state = self._state
        return self._ops.tensors_to_scann(
            state.dataset,
            state.scann_config,
            state.serialized_partitioner,
            state.datapoint_to_token,
            state.ah_codebook,
            state.hashed_dataset,
            state.int8_dataset,
            state.int8_multipliers,
            state.dp_norms,
            shared_name=self._shared_name,
        )


def _times(count: int, factor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.math.ceil(tf.cast(count, tf.float32) * factor), tf.int32)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Structure of a searcher; None for a part that it does not have."""

    num_leaves: int | None
    num_leaves_to_search: int | None
    num_reordering_candidates: int | None

    @property
    def scores_exactly(self) -> bool:
        """Whether candidates are scored by brute force instead of hashing and reordering."""
        return self.num_reordering_candidates is None


def _choose(num_candidates: int, config: ScannConfig) -> _Layout:
    """Return the structure for a corpus; the configuration takes precedence."""
    leaves = searched = reordered = None
    if config.num_leaves is not None or num_candidates >= _TREE_FROM:
        leaves = min(config.num_leaves or round(math.sqrt(num_candidates)), num_candidates)
        searched = min(config.num_leaves_to_search or max(1, round(leaves / 10)), leaves)
    if config.num_reordering_candidates is not None or num_candidates >= _HASH_FROM:
        reordered = config.num_reordering_candidates or _REORDERING_CANDIDATES
    return _Layout(
        num_leaves=leaves, num_leaves_to_search=searched, num_reordering_candidates=reordered
    )


def _build(candidate_embeddings: npt.NDArray[np.float32], layout: _Layout, shared_name: str) -> Any:
    builder = scann_ops().builder(tf.constant(candidate_embeddings), 100, "dot_product")
    if layout.num_leaves is not None:
        builder = builder.tree(
            num_leaves=layout.num_leaves,
            num_leaves_to_search=layout.num_leaves_to_search,
            training_sample_size=min(len(candidate_embeddings), _TRAINING_SAMPLE),
            min_partition_size=1,
        )
    if layout.scores_exactly:
        builder = builder.score_brute_force()
    else:
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        builder = builder.reorder(layout.num_reordering_candidates)
    return builder.build(shared_name=shared_name)


@contextmanager
def _quiet_native_log() -> Iterator[None]:
    """Send what native code writes to stderr to our own log instead.

    ScaNN logs its training through a copy of Abseil that no setting reaches. After a
    failure the lines are logged as errors: they may say more than the exception.
    """
    level = logging.ERROR
    sys.stderr.flush()
    stderr = os.dup(_STDERR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDERR)
        try:
            yield
            level = logging.DEBUG
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                log.log(level, "%s", line)
