"""Every index answers as NumPy does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig, ScannConfig
from shortlist.export.index.base import CandidateIndex, best_first
from shortlist.export.index.build import build_index

Matrix = npt.NDArray[np.float32]

EXACT = [
    ("brute_force", BruteForceConfig()),
    ("scann", ScannConfig()),
    ("scann", ScannConfig(num_leaves=10, num_leaves_to_search=10)),
    ("ivf", IvfConfig(num_leaves=10, num_leaves_to_search=10)),
]


def ids(count: int) -> list[str]:
    return [f"c{i}" for i in range(count)]


def build(name: str, candidates: Matrix, config: IndexConfig) -> CandidateIndex:
    return build_index(name, candidates, ids(len(candidates)), config)


def oracle(queries: Matrix, candidates: Matrix, k: int) -> tuple[Matrix, npt.NDArray[np.int64]]:
    scores = queries @ candidates.T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, positions, axis=1), positions


@pytest.fixture(scope="module")
def vectors() -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(7)
    return (
        rng.standard_normal((9, 16)).astype(np.float32),
        rng.standard_normal((400, 16)).astype(np.float32),
    )


@pytest.mark.parametrize(("name", "config"), EXACT)
@pytest.mark.parametrize("k", [1, 7, 400])
def test_index_that_searches_everything_equals_numpy(
    name: str, config: IndexConfig, k: int, vectors: tuple[Matrix, Matrix]
) -> None:
    queries, candidates = vectors
    index = build(name, candidates, config)
    scores, positions = index.search(tf.constant(queries), k)
    expected_scores, expected_positions = oracle(queries, candidates, k)
    assert index.exact
    np.testing.assert_array_equal(positions.numpy(), expected_positions)
    np.testing.assert_allclose(scores.numpy(), expected_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "config"), EXACT)
def test_equal_scores_are_ordered_by_position(name: str, config: IndexConfig) -> None:
    # Small whole numbers multiply without rounding, so equal means equal everywhere.
    rng = np.random.default_rng(3)
    candidates = rng.integers(-1, 2, (60, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (8, 3)).astype(np.float32)
    _, positions = build(name, candidates, config).search(tf.constant(queries), 60)
    np.testing.assert_array_equal(positions.numpy(), oracle(queries, candidates, 60)[1])


@pytest.mark.parametrize(("name", "config"), EXACT)
def test_empty_batch_has_no_rows(
    name: str, config: IndexConfig, vectors: tuple[Matrix, Matrix]
) -> None:
    index = build(name, vectors[1], config)
    scores, positions = index.search(tf.zeros([0, 16]), 5)
    assert scores.shape == positions.shape == (0, 5)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("scann", ScannConfig(num_leaves=40, num_leaves_to_search=1)),
        ("scann", ScannConfig(num_leaves=40, num_reordering_candidates=5)),
        ("ivf", IvfConfig(num_leaves=40, num_leaves_to_search=1)),
        ("ivf", IvfConfig(num_leaves=40, num_leaves_to_search=3, prefilter_dimensions=4)),
        ("ivf", IvfConfig(num_leaves=40, num_leaves_to_search=3, row_type="bfloat16")),
    ],
)
def test_approximate_answers_have_no_nan_and_no_repeated_candidate(
    name: str, config: IndexConfig, vectors: tuple[Matrix, Matrix]
) -> None:
    queries, candidates = vectors
    index = build(name, candidates, config)
    scores, positions = index.search(tf.constant(queries), 300)
    assert not index.exact
    assert not np.isnan(scores.numpy()).any()
    for row_scores, row in zip(scores.numpy(), positions.numpy(), strict=True):
        answers = row[row < 400]
        assert len(set(answers)) == len(answers)
        assert (row[len(answers) :] == 400).all()
        assert np.isneginf(row_scores[len(answers) :]).all()


def test_reordered_scores_are_exact(vectors: tuple[Matrix, Matrix]) -> None:
    queries, candidates = vectors
    config = IvfConfig(num_leaves=10, num_leaves_to_search=5, prefilter_dimensions=4)
    scores, positions = build("ivf", candidates, config).search(tf.constant(queries), 20)
    expected = np.take_along_axis(queries @ candidates.T, positions.numpy(), axis=1)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "config"), EXACT)
def test_embeddings_are_not_gathered_from_a_variable(
    name: str, config: IndexConfig, vectors: tuple[Matrix, Matrix]
) -> None:
    """After such a gather TensorFlow copies the whole variable at every later read."""
    index = build(name, vectors[1], config)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def embed(positions: tf.Tensor) -> tf.Tensor:
        return index.embeddings(positions)

    np.testing.assert_array_equal(embed(tf.constant([3, 1])), vectors[1][[3, 1]])
    operations = embed.get_concrete_function().graph.get_operations()
    assert "ResourceGather" not in {operation.type for operation in operations}


def test_ivf_searches_as_many_leaves_as_k_candidates_need(vectors: tuple[Matrix, Matrix]) -> None:
    queries, candidates = vectors
    index = build("ivf", candidates, IvfConfig(num_leaves=40, num_leaves_to_search=1))
    _, positions = index.search(tf.constant(queries), 200)
    assert (positions.numpy() < 400).all()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "scann",
            ScannConfig(num_leaves=50, num_leaves_to_search=15, num_reordering_candidates=100),
        ),
        ("ivf", IvfConfig(num_leaves=50, num_leaves_to_search=15)),
        ("ivf", IvfConfig(num_leaves=50, num_leaves_to_search=15, prefilter_dimensions=12)),
        ("ivf", IvfConfig(num_leaves=50, num_leaves_to_search=15, row_type="bfloat16")),
        ("ivf", IvfConfig(num_leaves=50, num_leaves_to_search=15, row_type="int8")),
    ],
)
def test_approximate_index_finds_most_of_the_best(name: str, config: IndexConfig) -> None:
    rng = np.random.default_rng(11)
    centers = rng.standard_normal((30, 16)) * 2
    candidates = (centers[rng.integers(0, 30, 3000)] + rng.standard_normal((3000, 16))).astype("f4")
    queries = (centers[rng.integers(0, 30, 50)] + rng.standard_normal((50, 16))).astype("f4")
    _, positions = build(name, candidates, config).search(tf.constant(queries), 10)
    expected = oracle(queries, candidates, 10)[1]
    recalls = [len(set(a) & set(b)) / 10 for a, b in zip(positions.numpy(), expected, strict=True)]
    assert np.mean(recalls) >= 0.9


MANY_LEAVES = IvfConfig(num_leaves=2500, num_leaves_to_search=60, prefilter_dimensions=4)


@pytest.fixture(scope="module")
def many() -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(31)
    scale = np.arange(1, 9, dtype=np.float32) ** -1.0
    return (
        (rng.standard_normal((17, 8)) * scale).astype(np.float32),
        (rng.standard_normal((5003, 8)) * scale).astype(np.float32),
    )


@pytest.fixture(scope="module")
def many_leaves(many: tuple[Matrix, Matrix]) -> CandidateIndex:
    return build("ivf", many[1], MANY_LEAVES)


def test_few_of_many_leaves_hold_most_of_the_best(
    many: tuple[Matrix, Matrix], many_leaves: CandidateIndex
) -> None:
    queries, candidates = many
    _, positions = many_leaves.search(tf.constant(queries), 10)
    expected = oracle(queries, candidates, 10)[1]
    recalls = [len(set(a) & set(b)) / 10 for a, b in zip(positions.numpy(), expected, strict=True)]
    assert np.mean(recalls) >= 0.85


@pytest.mark.parametrize("k", [1, 5003])
def test_query_of_zeros_finds_k_candidates(k: int, many_leaves: CandidateIndex) -> None:
    """No score ranks the leaves, and no empty place may count as a candidate."""
    scores, positions = many_leaves.search(tf.zeros([2, 8]), k)
    assert (scores.numpy() == 0).all()
    for row in positions.numpy():
        assert len(set(row)) == k
        assert (row < 5003).all()


def test_optimized_graph_answers_batches_as_single_queries(
    many: tuple[Matrix, Matrix], many_leaves: CandidateIndex
) -> None:
    """A single query has its own graph, whose shapes must not spread to the other."""
    queries = many[0]

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32)])
    def search(batch: tf.Tensor) -> tf.Tensor:
        return many_leaves.search(batch, 10)[1]

    expected = np.concatenate([search(queries[i : i + 1]).numpy() for i in range(17)])
    for batch in (17, 2, 0, 1, 9):
        np.testing.assert_array_equal(search(queries[:batch]).numpy(), expected[:batch])


@pytest.mark.parametrize("batch", [2, 8, 9, 17])
@pytest.mark.parametrize("k", [10, 4000])
def test_batch_answers_as_its_single_queries(
    batch: int, k: int, many: tuple[Matrix, Matrix], many_leaves: CandidateIndex
) -> None:
    queries = many[0][:batch]
    scores, positions = many_leaves.search(tf.constant(queries), k)
    for row in range(batch):
        single_scores, single = many_leaves.search(tf.constant(queries[row : row + 1]), k)
        np.testing.assert_allclose(scores[row], single_scores[0], rtol=1e-4, atol=1e-5)
        assert np.mean(positions[row].numpy() == single[0].numpy()) > 0.99


@pytest.mark.slow
def test_saved_ivf_answers_the_same_in_a_fresh_process(
    tmp_path: Path, many: tuple[Matrix, Matrix], many_leaves: CandidateIndex
) -> None:
    module = tf.Module()
    module.index = many_leaves
    module.search = tf.function(
        lambda queries: many_leaves.search(queries, 10),
        input_signature=[tf.TensorSpec([None, 8], tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    np.save(tmp_path / "queries.npy", many[0])
    script = (
        "import sys; import numpy as np; from shortlist.export._tf import tf\n"
        "folder = sys.argv[1]; loaded = tf.saved_model.load(folder + '/saved')\n"
        "scores, positions = loaded.search(np.load(folder + '/queries.npy'))\n"
        "np.savez(folder + '/answers.npz', scores=scores, positions=positions)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
    scores, positions = module.search(many[0])
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_array_equal(answers["scores"], scores)
        np.testing.assert_array_equal(answers["positions"], positions)


@pytest.mark.parametrize(
    ("candidates", "names", "message"),
    [
        (np.zeros((0, 2), "f4"), [], "at least one candidate"),
        (np.zeros((2, 2), "f4"), ["a"], "same length"),
        (np.zeros((2, 2), "f4"), ["a", "a"], "distinct"),
        (np.zeros((2, 2), "f4"), ["a", ""], "end of a short answer"),
        (np.array([[np.nan, 0]], "f4"), ["a"], "finite"),
        (np.zeros((2, 2), "f8"), ["a", "b"], "float32"),
    ],
)
def test_impossible_candidates_are_refused(
    candidates: Matrix, names: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_index("brute_force", candidates, names, BruteForceConfig())


def test_best_first_orders_any_floats() -> None:
    scores = tf.constant([[0.0, -0.0, -1.5, np.inf, -np.inf, 2.0, 1e-30, -1e-30, 2.0]])
    positions = tf.constant([[5, 4, 1, 9, 0, 8, 2, 3, 7]])
    top_scores, top = best_first(scores, positions, 9)
    np.testing.assert_array_equal(top.numpy(), [[9, 7, 8, 2, 4, 5, 3, 1, 0]])
    np.testing.assert_array_equal(
        top_scores.numpy(), np.array([[np.inf, 2, 2, 1e-30, 0, 0, -1e-30, -1.5, -np.inf]], "f4")
    )
