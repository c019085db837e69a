"""Weights of interactions from kinds of events and from a column."""

from pathlib import Path

import numpy as np
import pytest

from shortlist.export.data import DataConfig, DataError, load
from shortlist.export.data.histories import Histories
from shortlist.export.data.split import Split

ROWS = """user,item,event,quantity,ts
2,a,view,1,10
2,b, purchase,2,30
2,c,view,-1,20
1,a,cart,0.5,10
1,b,purchase,0,20
1,c,share,1,30
"""
WEIGHTS = ("view=1", "cart=3", "purchase=10", "share=0")


def read(folder: Path, rows: str = ROWS, **options: object) -> DataConfig:
    path = folder / "shop.csv"
    path.write_text(rows)
    return DataConfig(source=str(path), **options)  # type: ignore[arg-type]


def test_event_and_quantity_multiply_and_returns_go(tmp_path: Path) -> None:
    config = read(tmp_path, event_column="event", event_weights=WEIGHTS, weight_column="quantity")
    dataset = load(config)
    assert dataset.user_ids == ("1", "2")
    assert dataset.user_positions.tolist() == [0, 1, 1]
    assert dataset.weights is not None
    assert dataset.weights.dtype == np.float32
    assert dataset.weights.tolist() == [1.5, 1, 20]
    assert dataset.skipped == {"event of weight 0": 1, "'quantity' is 0 or less": 2}
    assert any(
        "2 of 6 rows are left out: 'quantity' is 0 or less" in line for line in dataset.notes
    )
    assert "event as events, quantity as weights" in dataset.notes[0]
    again = load(DataConfig.from_json(config.as_json()))
    assert again.weights is not None
    assert again.weights.tolist() == dataset.weights.tolist()


def test_histories_keep_weights_in_the_order_of_time(tmp_path: Path) -> None:
    config = read(tmp_path, event_column="event", event_weights=WEIGHTS)
    dataset = load(config)
    everything = np.arange(dataset.num_interactions)
    kept = Histories.of_users(dataset, everything[::-1])
    assert kept.events.weights is not None
    assert kept.events.weights.tolist() == [3, 10, 1, 1, 10]
    assert kept.take(np.array([1])).last(2).events.weights.tolist() == [1, 10]  # type: ignore[union-attr]
    assert kept.popularity().tolist() == [4, 20, 1]
    assert kept.relative_weights.mean() == pytest.approx(1)


def test_without_the_options_nothing_has_a_weight(tmp_path: Path) -> None:
    dataset = load(read(tmp_path))
    assert dataset.weights is None
    assert dataset.num_interactions == 6
    split = Split(training=np.arange(6), held_out=np.arange(0))
    assert Histories.of_users(dataset, split.fitted).events.weights is None


def test_all_events_without_a_weight_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(read(tmp_path, event_column="event", event_weights=("view=1", "purchase=10")))
    text = "lines 5 and 7, column 'event': 2 kinds of events have no weights: cart (1), share (1)"
    assert text in str(error.value)
    assert "add cart=WEIGHT,share=WEIGHT to --event-weights" in str(error.value)
    with pytest.raises(DataError, match=r"line 7, column 'event': the event 'share' has no weight"):
        load(read(tmp_path, event_column="event", event_weights=WEIGHTS[:3]))


def test_a_column_of_as_many_kinds_as_rows_is_one_fault(tmp_path: Path) -> None:
    """One scan and one fault per kind took hours on a column such as `session_id`."""
    sessions = 100_000
    rows = "".join(f"{n % 9},{n % 7},s{n}\n" for n in range(sessions))
    config = read(
        tmp_path,
        f"user,item,session\n{rows}",
        event_column="session",
        event_weights=("view=1",),
    )
    with pytest.raises(DataError, match=r"100,000 kinds of events have no weights: ") as error:
        load(config)
    assert len(str(error.value)) < 1000


def test_kinds_of_events_are_listed_if_none_has_a_weight(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"view \(2\), purchase \(2\), cart \(1\), share \(1\)"):
        load(read(tmp_path, event_column="event"))


def test_a_kind_that_no_row_has_is_told(tmp_path: Path) -> None:
    dataset = load(
        read(tmp_path, event_column="event", event_weights=(*WEIGHTS, "purchas=2")),
    )
    assert any("'purchas'" in line and "'purchase'" in line for line in dataset.notes)


def test_weights_out_of_range_count_as_the_nearest_in_it(tmp_path: Path) -> None:
    dataset = load(read(tmp_path, "user,item,n\n1,a,1e9\n1,b,1e-9\n1,c,5\n", weight_column="n"))
    assert dataset.weights is not None
    assert sorted(dataset.weights.tolist()) == pytest.approx([1e-6, 5, 1e6])
    assert any("2 weights are outside of 1e-06 to 1e+06" in line for line in dataset.notes)


def test_nothing_is_left_of_returns_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no interaction is left.*2 rows \('n' is 0 or less\)"):
        load(read(tmp_path, "user,item,n\n1,a,-1\n1,b,0\n", weight_column="n"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_weights": ("view=1",)}, "event_weights needs event_column"),
        ({"event_column": "e", "event_weights": ("view=-1",)}, "got 'view=-1'"),
        ({"event_column": "e", "event_weights": ("view",)}, "got 'view'"),
        ({"event_column": "e", "event_weights": ("view=nan",)}, "got 'view=nan'"),
        ({"event_column": "e", "event_weights": ("a=1", "a=2")}, "two weights of 'a'"),
        ({"text_columns": ("a", "a")}, "text_columns must name columns, each once"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**options)  # type: ignore[arg-type]


def test_named_data_has_no_events() -> None:
    config = DataConfig(source="sample", weight_column="quantity")
    with pytest.raises(DataError, match="--weight-column needs a file of interactions"):
        load(config)
