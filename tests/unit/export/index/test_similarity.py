"""Inner products of an index's rows and queries give the similarities, whatever their kind."""

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import SIMILARITIES, SimilarityName
from shortlist.export.index.similarity import fit_similarity

_random = np.random.default_rng(1)
CANDIDATES = (_random.standard_normal((200, 6)) + 5).astype(np.float32)
QUERIES = (3 * _random.standard_normal((7, 6)) + 5).astype(np.float32)


def exact(name: SimilarityName, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return similarities `[batch, n]` by their definition, in float64."""
    q, c = queries.astype(np.float64), CANDIDATES.astype(np.float64)
    if name == "l2":
        return -np.square(q[:, None] - c[None]).sum(axis=2)
    if name == "cosine":
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        c /= np.linalg.norm(c, axis=1, keepdims=True)
    return q @ c.T


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scores_are_the_similarities(name: SimilarityName) -> None:
    similarity, rows = fit_similarity(name, CANDIDATES)
    queries = tf.constant(QUERIES)
    products = similarity.query(queries).numpy() @ rows.T
    scores = similarity.score(tf.constant(products), queries).numpy()
    assert rows.dtype == np.float32
    np.testing.assert_allclose(scores, exact(name, QUERIES), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "l2"])
def test_a_candidate_is_its_own_best_candidate(name: SimilarityName) -> None:
    """`similar` takes a row of the index back to a query."""
    similarity, rows = fit_similarity(name, CANDIDATES)
    queries = similarity.vectors(tf.constant(rows))
    best = np.argmax(similarity.query(queries).numpy() @ rows.T, axis=1)
    assert best.tolist() == list(range(len(CANDIDATES)))


def test_vectors_of_l2_and_dot_are_the_embeddings() -> None:
    for name in ("dot", "l2"):
        similarity, rows = fit_similarity(name, CANDIDATES)
        np.testing.assert_allclose(similarity.vectors(tf.constant(rows)), CANDIDATES, rtol=1e-5)


def test_l2_ranks_equally_long_candidates() -> None:
    """Without any spread of the lengths, the added column has no scale of its own."""
    candidates = np.eye(3, dtype=np.float32)
    similarity, rows = fit_similarity("l2", candidates)
    queries = tf.constant([[0.9, 0.1, 0.0]])
    scores = similarity.score(tf.constant(similarity.query(queries).numpy() @ rows.T), queries)
    np.testing.assert_allclose(scores, [[-0.02, -1.62, -1.82]], rtol=1e-5)


def test_padding_stays_padding() -> None:
    for name in SIMILARITIES:
        similarity, _ = fit_similarity(name, CANDIDATES)
        padded = similarity.score(tf.constant([[1.0, -np.inf]]), tf.constant(QUERIES[:1]))
        assert padded.numpy()[0, 1] == -np.inf
