"""Files as pandas, Spark, spreadsheets and tag managers write them: the shared cases."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.export.data import DataConfig, DataError, Dataset, load
from tests.support.paths import ROOT

CASES = Path(os.environ.get("SHORTLIST_CASES", ROOT.parent / "shared" / "cases"))
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"no {CASES}; set SHORTLIST_CASES to the folder of the cases"
)


def read(name: str, **options: Any) -> Dataset:
    for key in ("candidates_file", "users_file"):
        if key in options:
            options[key] = str(CASES / options[key])
    return load(DataConfig(source=str(CASES / name), **options))


def test_users_that_pandas_wrote_as_numbers_with_a_point_are_known() -> None:
    dataset = read("float_user_ids.csv")
    assert "12550" in dataset.user_ids
    assert dataset.num_interactions == 400
    assert (
        "float_user_ids.csv: the values of 'CustomerID' are whole numbers, read without '.0'"
        in (dataset.notes)
    )


@pytest.mark.parametrize(
    ("name", "catalogue"), [("std.csv", "cands_float.csv"), ("floatids.csv", "cands.csv")]
)
def test_either_file_may_have_points(name: str, catalogue: str) -> None:
    dataset, plain = read(name, candidates_file=catalogue), read("std.csv")
    assert dataset.candidate_ids == tuple(str(n) for n in range(1, 61))
    assert dataset.user_ids == plain.user_ids
    assert dataset.attributes["in_stock"].values is not None
    assert set(dataset.attributes["in_stock"].values) == {("True",), ("False",)}


def test_unclosed_quote_is_named_by_its_line() -> None:
    with pytest.raises(DataError, match="line 101: a quote opens there and is not closed"):
        read("strayquote2.csv")


@pytest.mark.parametrize(
    ("name", "rows"), [("semi.csv", 40), ("spaces.csv", 2), ("spark_folder", 3000)]
)
def test_usual_forms_are_read(name: str, rows: int) -> None:
    assert read(name).num_interactions == rows


def test_gaps_in_ratings_block_only_those_who_ask_for_ratings() -> None:
    dataset = read("missing_rating.csv")
    assert dataset.num_interactions == 3000
    assert dataset.ratings is None
    assert any("so ratings are not read" in note for note in dataset.notes)
    with pytest.raises(DataError, match="line 5, column 'rating' is empty"):
        read("missing_rating.csv", rating_column="rating")
    dataset = read("missing_rating.csv", rating_column="rating", skip_bad_rows=0.01)
    assert dataset.num_interactions == 2999
    assert dataset.skipped == {"column 'rating' is empty": 1}


def test_codes_stay_texts_and_numbers_stay_numbers() -> None:
    dataset = read("spaces.csv", candidates_file="cand_big.csv", unknown_candidates="add")
    assert dataset.attributes["sku"].values == (("00012",), ("00013",), ("00014",), ())
    assert dataset.candidate_ids == ("1", "2", "3", "4")
    dataset = read("spaces.csv", candidates_file="cand_mixed.csv", unknown_candidates="drop")
    price, year = dataset.attributes["price"].numbers, dataset.attributes["year"].numbers
    assert price is not None
    assert year is not None
    np.testing.assert_array_equal(price, [12, np.nan, 9.5])
    np.testing.assert_array_equal(year, [1999, np.nan, np.nan])
    assert dataset.skipped == {f"candidate not in {CASES / 'cand_mixed.csv'}": 1}


def test_times_are_read_or_told_truly() -> None:
    dataset = read("ts1st.csv")
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [1714521600, 1714608000]  # 1 and 2 May 2024
    with pytest.raises(DataError, match=r"with a time zone.*without a time zone.*same form"):
        read("tsmixtz.csv")


def test_clicks_of_a_shop_are_read_without_options() -> None:
    dataset = read("clicks.csv", candidates_file="cands_product.csv")
    (note,) = dataset.notes
    assert note.startswith("clicks.csv: reading customer_id as users, product_id as candidates, ")
    assert note.endswith("ts as times; not read: event")
