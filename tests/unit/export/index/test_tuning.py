"""The requested recall decides the effort of an index."""

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig, ScannConfig
from shortlist.export.index.base import Effort
from shortlist.export.index.build import build_index
from shortlist.export.index.tuning import exact_positions, explore, recall_at_k, tune

Matrix = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(23)
    return (
        rng.standard_normal((100, 12)).astype(np.float32),
        rng.standard_normal((1500, 12)).astype(np.float32),
    )


def ids(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def test_effort_reaches_the_target_with_the_fewest_leaves(
    vectors: tuple[Matrix, Matrix],
) -> None:
    queries, candidates = vectors
    index = build_index("ivf", candidates, ids(1500), IvfConfig(num_leaves=60))
    exact = exact_positions(queries, candidates, 10)
    report = tune(index, queries, exact, target=0.9)
    assert report.target == 0.9
    assert report.chosen.recall >= 0.9
    assert report.chosen in report.curve
    assert index.effort.num_leaves_to_search == report.chosen.num_leaves_to_search
    assert len({point.effort for point in report.curve}) == len(report.curve)
    answers = index.search(queries, 10)[1].numpy()
    assert recall_at_k(answers, exact) == pytest.approx(report.chosen.recall, abs=1e-4)
    fewer = Effort((index.effort.num_leaves_to_search or 0) - 1, None)
    missed = index.search(queries, 10, fewer)[1].numpy()
    assert recall_at_k(missed, exact) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ivf", "scann"])
def test_each_target_gets_its_own_effort_from_one_curve(
    vectors: tuple[Matrix, Matrix], name: str
) -> None:
    """Reordering gives several least efforts; more leaves than one of them never win."""
    queries, candidates = vectors
    configs: dict[str, IndexConfig] = {
        "ivf": IvfConfig(num_leaves=60, prefilter_dimensions=10),
        "scann": ScannConfig(num_leaves=60, num_reordering_candidates=100),
    }
    index = build_index(name, candidates, ids(1500), configs[name])
    before = index.effort
    exact = exact_positions(queries, candidates, 10)
    exploration = explore(index, queries, exact, [0.8, 0.9, 1.1])
    curve = exploration.curve
    assert index.effort == before
    assert set(exploration.chosen) == {0.8, 0.9}
    assert len({point.effort for point in curve}) == len(curve)
    for target, chosen in exploration.chosen.items():
        assert chosen in curve
        assert chosen.recall >= target
        leaves = [
            point.num_leaves_to_search or 0
            for point in curve
            if point.num_reordering_candidates == chosen.num_reordering_candidates
            and point.recall >= target
        ]
        assert chosen.num_leaves_to_search == min(leaves)
    assert exploration.chosen[0.8].effort != exploration.chosen[0.9].effort


def test_without_a_target_the_effort_stays(vectors: tuple[Matrix, Matrix]) -> None:
    queries, candidates = vectors
    config = IvfConfig(num_leaves=60, num_leaves_to_search=7)
    index = build_index("ivf", candidates, ids(1500), config)
    report = tune(index, queries, exact_positions(queries, candidates, 10), target=None)
    assert index.effort.num_leaves_to_search == 7
    assert report.curve == (report.chosen,)


@pytest.mark.slow
def test_recall_out_of_reach_is_refused(vectors: tuple[Matrix, Matrix]) -> None:
    """Two directions of twelve and few reordering candidates never find everything."""
    queries, candidates = vectors
    config = IvfConfig(num_leaves=60, prefilter_dimensions=1)
    index = build_index("ivf", candidates, ids(1500), config)
    with pytest.raises(ValueError, match=r"reaches recall@10 0\.\d+ at most, below the target 1.0"):
        tune(index, queries, exact_positions(queries, candidates, 10), target=1.0)


def test_exact_indexes_have_one_effort(vectors: tuple[Matrix, Matrix]) -> None:
    queries, candidates = vectors
    exact = exact_positions(queries, candidates, 10)
    for name, config in (("brute_force", BruteForceConfig()), ("scann", ScannConfig())):
        index = build_index(name, candidates, ids(1500), config)
        report = tune(index, queries, exact, target=0.99)
        assert [point.recall for point in report.curve] == [1.0]


def test_recall_counts_common_candidates() -> None:
    exact = np.array([[1, 2], [3, 4]])
    assert recall_at_k(np.array([[2, 9], [4, 3]]), exact) == 0.75
