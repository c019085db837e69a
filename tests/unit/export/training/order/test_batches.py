"""Pieces of histories: what they cover, how they are grouped, and what changes by epoch."""

import numpy as np
import pytest

from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.training.order.batches import OrderBatches

COUNTS = np.array([0, 1, 2, 9, 10, 40, 3, 0, 23, 300])


@pytest.fixture(scope="module")
def histories() -> Histories:
    """The candidate of an event is its place, and each gap is 1 + its place in its history."""
    starts = np.concatenate([[0], np.cumsum(COUNTS)])
    within = np.arange(COUNTS.sum()) - np.repeat(starts[:-1], COUNTS)
    return Histories(
        events=Pairs(starts=starts, columns=np.arange(COUNTS.sum(), dtype=np.int32)),
        times=2 ** within.clip(0, 30),
        num_candidates=int(COUNTS.sum()),
    )


def batches(histories: Histories, seed: int = 1) -> OrderBatches:
    return OrderBatches(histories, length=8, tokens=32, seed=seed)


def test_every_epoch_asks_for_every_event_but_the_first_ones(histories: Histories) -> None:
    source = batches(histories)
    starts = np.concatenate([[0], np.cumsum(COUNTS)])
    expected = set(range(COUNTS.sum())) - set(starts[:-1].tolist())
    expected |= {50}  # a history of no event before; its start is that of the next one
    for epoch in range(3):
        targets: set[int] = set()
        for number in range(source.count):
            batch = source.batch(number, epoch=epoch)
            assert source.size(number) == np.sum(batch.counts - 1)
            for row, count in zip(batch.candidates, batch.counts, strict=True):
                assert 2 <= count <= 9
                np.testing.assert_array_equal(np.diff(row[:count]), 1)
                assert not row[count:].any()
                targets |= set(row[1:count].tolist())
        assert targets == expected


def test_batches_hold_about_as_many_events_each_of_similar_length(histories: Histories) -> None:
    source = batches(histories)
    sizes = [source.batch(number, epoch=2).candidates[:, 1:].size for number in range(source.count)]
    assert 8 < source.count < 20
    assert max(sizes) <= 64  # padded
    assert min(sizes) >= 16


def test_batches_follow_from_seed_epoch_and_number(histories: Histories) -> None:
    source, again = batches(histories), batches(histories)
    first = source.batch(3, epoch=0)
    source.batch(1, epoch=5)
    for other in (source.batch(3, epoch=0), again.batch(3, epoch=0)):
        np.testing.assert_array_equal(first.candidates, other.candidates)
        np.testing.assert_array_equal(first.gaps, other.gaps)
    whole = [
        [source.batch(number, epoch=epoch).candidates.tolist() for number in range(source.count)]
        for epoch in (0, 1)
    ]
    assert whole[0] != whole[1]
    assert whole[0] != [
        batches(histories, seed=2).batch(number, epoch=0).candidates.tolist()
        for number in range(source.count)
    ]


def test_some_rows_lose_their_gaps_from_some_event_on(histories: Histories) -> None:
    source = batches(histories)
    kept = lost = partly = 0
    for epoch in range(20):
        for number in range(source.count):
            batch = source.batch(number, epoch=epoch)
            gaps = histories.gaps[batch.candidates]
            for row, expected, count in zip(batch.gaps, gaps, batch.counts, strict=True):
                known = row[1:count] > 0  # the first event of a history has none
                assert (row[1:count][known] == expected[1:count][known]).all()
                assert not row[count:].any()
                kept += known.all()
                lost += not known.any()
                partly += known.any() and not known.all()
                assert (np.diff(known.astype(int)) <= 0).all()
    total = kept + lost + partly
    assert lost / total == pytest.approx(0.12, abs=0.03)
    assert partly / total == pytest.approx(0.08, abs=0.03)


def test_data_without_order_are_refused() -> None:
    events = Pairs(starts=np.array([0, 1, 1, 2]), columns=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="no user has two events"):
        batches(Histories(events=events, num_candidates=1))
