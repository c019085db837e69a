"""An index made from the index of an earlier corpus equals one that is built from scratch."""

import re
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

import shortlist.export.index.partition
from shortlist.export._tf import tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig
from shortlist.export.data.change import CorpusChange
from shortlist.export.index.base import Effort
from shortlist.export.index.build import TunedIndex, build_index, build_tuned
from shortlist.export.index.partition import Partition, place_in_partition, train_partition
from shortlist.export.index.previous import Leaves, PreviousIndex
from shortlist.export.index.tuning import exact_positions

Matrix = npt.NDArray[np.float32]

CONFIG = IvfConfig(num_leaves=40)
QUERIES = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)


def vectors(count: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)


def change_of(before: int, *, gone: int, added: int, near: Matrix | None = None) -> CorpusChange:
    """Remove candidates at random, or those with the largest first component of `near`."""
    order = np.random.default_rng(3).permutation(before)
    if near is not None:
        order = np.argsort(near[:, 0])
    return CorpusChange(before=before, kept=np.sort(order[: before - gone]), added=added)


def leaves_of(partition: Partition) -> Leaves:
    return Leaves(
        members=partition.members,
        group_size=partition.group_size,
        num_candidates=partition.num_candidates,
    )


def previous_of(partition: Partition, leaves_to_search: int = 40) -> PreviousIndex:
    return PreviousIndex(effort=Effort(leaves_to_search, None), leaves=leaves_of(partition))


@pytest.mark.parametrize(("count", "leaves", "group_size"), [(600, 40, 40), (2000, 120, 8)])
@pytest.mark.parametrize("where", ["anywhere", "in one place"])
@pytest.mark.parametrize(("gone", "added"), [(0, 0), (100, 0), (0, 60), (100, 100), (90, 200)])
def test_leaves_hold_each_candidate_once_after_a_change(
    count: int,
    leaves: int,
    group_size: int,
    where: str,
    gone: int,
    added: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shortlist.export.index.partition, "_CROWDED", added)
    before = vectors(count)
    partition = train_partition(before, leaves, CONFIG, group_size=group_size)
    near = before if where == "in one place" else None
    change = change_of(count, gone=gone, added=added, near=near)
    after = change.rows(before, vectors(added, seed=5) * np.float32(1 if near is None else 0.1))
    previous = previous_of(partition).after(change, replaced=change.kept[:10]).leaves
    assert previous is not None
    assert previous.unplaced() == added + 10
    placed = place_in_partition(after, previous.members, CONFIG, group_size=group_size)
    n, members = change.after, placed.members
    np.testing.assert_array_equal(np.sort(members[members < n]), np.arange(n))
    assert (np.diff((members == n).astype(int), axis=1) >= 0).all()  # empty places come last
    assert placed.sizes().min() >= min(-(-members.shape[1] // 2), n // leaves)
    for leaf, centroid in zip(members, placed.centroids, strict=True):
        np.testing.assert_allclose(centroid, after[leaf[leaf < n]].mean(axis=0), atol=1e-5)


def test_kept_candidates_stay_and_new_ones_join_near_leaves() -> None:
    before = vectors(2000)
    partition = train_partition(before, 100, CONFIG)
    change = change_of(2000, gone=100, added=100)
    after = change.rows(before, vectors(100, seed=5))
    previous = previous_of(partition).after(change).leaves
    assert previous is not None
    placed = place_in_partition(after, previous.members, CONFIG, group_size=100)
    leaf_of = np.empty(2001, int)
    leaf_of[previous.members] = np.arange(100)[:, None]
    now = np.empty(2001, int)
    now[placed.members] = np.arange(100)[:, None]
    assert np.mean(now[:1900] == leaf_of[:1900]) > 0.99
    far = np.linalg.norm(after[1900:, None] - placed.centroids[None], axis=2)
    nearest = np.argsort(far, axis=1)[:, :3]
    assert np.mean((nearest == now[1900:2000, None]).any(axis=1)) >= 0.85


def tuned(
    rows: Matrix, previous: PreviousIndex | None, config: IndexConfig = CONFIG, target: float = 0.8
) -> TunedIndex:
    return build_tuned(
        "ivf" if isinstance(config, IvfConfig) else "brute_force",
        rows,
        [str(i) for i in range(len(rows))],
        config,
        queries=QUERIES,
        exact=exact_positions(QUERIES, rows, 10),
        target=target,
        previous=previous,
    )


@pytest.fixture(scope="module")
def before() -> tuple[Matrix, Partition]:
    rows = vectors(600)
    return rows, train_partition(rows, 40, CONFIG)


def test_changed_index_equals_brute_force_if_it_searches_everything(
    before: tuple[Matrix, Partition],
) -> None:
    change = change_of(600, gone=60, added=50)
    rows = change.rows(before[0], vectors(50, seed=5))
    previous = previous_of(before[1]).after(change).leaves
    index = build_index(
        "ivf", rows, [str(i) for i in range(590)], replace(CONFIG, num_leaves_to_search=40),
        leaves=previous,
    )  # fmt: skip
    assert index.exact
    positions = index.search(tf.constant(QUERIES), 590)[1].numpy()
    np.testing.assert_array_equal(positions, np.argsort(-(QUERIES @ rows.T), kind="stable"))


def test_effort_stays_while_it_reaches_the_recall(before: tuple[Matrix, Partition]) -> None:
    change = change_of(600, gone=30, added=40)
    rows = change.rows(before[0], vectors(40, seed=5))
    previous = replace(previous_of(before[1], 30), explored_leaves=28).after(change)
    made = tuned(rows, previous)
    assert made.origin == "placed 40 of 610 in spare places"
    assert made.index.effort == Effort(30, None)
    assert made.recall.curve == (made.recall.chosen,)
    assert made.recall.chosen.recall >= 0.8
    assert made.recall.explored_leaves == 28


def test_effort_grows_by_a_quarter_at_most_before_a_rebuild(
    before: tuple[Matrix, Partition],
) -> None:
    enough = tuned(before[0], None).index.effort.num_leaves_to_search or 0
    change = change_of(600, gone=0, added=0)
    little = tuned(before[0], previous_of(before[1], enough - 1).after(change))
    assert little.origin == "placed 0 of 600 in spare places"
    assert enough <= (little.index.effort.num_leaves_to_search or 0) <= 1.25 * enough
    assert little.recall.explored_leaves == enough - 1
    far = tuned(before[0], previous_of(before[1], enough // 2).after(change))
    assert far.origin == "rebuilt: recall@10 fell below 0.8"
    assert far.recall.explored_leaves == far.index.effort.num_leaves_to_search == enough


@pytest.mark.parametrize(
    ("config", "gone", "added", "reason"),
    [
        (IvfConfig(num_leaves=20), 0, 0, "600 candidates need 20 leaves instead of 40"),
        (CONFIG, 565, 0, "35 candidates need 35 leaves instead of 40"),
        (CONFIG, 0, 250, "250 of 850 candidates are new"),
    ],
)
def test_unsuitable_leaves_are_built_again(
    before: tuple[Matrix, Partition], config: IvfConfig, gone: int, added: int, reason: str
) -> None:
    change = change_of(600, gone=gone, added=added)
    rows = change.rows(before[0], vectors(added, seed=5))
    made = tuned(rows, previous_of(before[1]).after(change), config)
    assert made.origin == f"rebuilt: {reason}"
    assert made.recall.chosen.recall >= 0.8
    assert made.index.num_candidates == len(rows)


def test_new_candidates_that_crowd_a_few_leaves_get_new_ones(
    before: tuple[Matrix, Partition],
) -> None:
    """Far from what they are like, they would rarely be found."""
    change = change_of(600, gone=0, added=60)
    rows = change.rows(before[0], before[0][:1] + vectors(60, seed=5) / np.float32(50))
    made = tuned(rows, previous_of(before[1]).after(change))
    origin = re.match(
        r"rebuilt: (\d+) of 60 new .* find their nearest leaves full", made.origin or ""
    )
    assert origin is not None
    assert int(origin[1]) > 30


def test_an_index_without_readable_leaves_is_built_again(before: tuple[Matrix, Partition]) -> None:
    made = tuned(before[0], PreviousIndex(effort=Effort(35, None)))
    assert made.origin == "rebuilt: there are no spare places"
    assert made.index.effort == Effort(35, None)


def test_brute_force_has_nothing_to_take_over(before: tuple[Matrix, Partition]) -> None:
    assert tuned(before[0], None, BruteForceConfig()).origin is None


@pytest.mark.parametrize("members", [[[0, 1], [1, 3]], [[0, 1], [2, 4]], [[-1, 1], [2, 3]]])
def test_leaves_with_damaged_members_are_refused(members: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"members|two places"):
        Leaves(members=np.array(members, np.int32), group_size=2, num_candidates=3)


def test_change_of_another_corpus_is_refused(before: tuple[Matrix, Partition]) -> None:
    with pytest.raises(ValueError, match=r"change is one of 599 .*has 600"):
        previous_of(before[1]).after(change_of(599, gone=1, added=0))
