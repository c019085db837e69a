"""What an inspection says about data, from files of every quality."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest

from shortlist.export.config import TrainConfig
from shortlist.export.data import columns
from shortlist.export.data.columns import describe_columns
from shortlist.export.data.config import DataConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import configured_split
from shortlist.export.evaluation.held_out import held_out_facts
from shortlist.export.inspection.facts import profile_of
from shortlist.export.inspection.inspection import inspect_data

HEADER = "customer_id,product_id,ts,device,note"
DEVICES = ("phone", "tv", "tv")


def clicks(folder: Path, rows: Sequence[str] = (), *, num_users: int = 120) -> DataConfig:
    """Write three clicks of each user on different candidates, and further rows."""
    lines = [
        f"{user},{(user + place) % 40},{1_700_000_000 + 60 * place},{DEVICES[user % 3]},x"
        for user in range(num_users)
        for place in range(3)
    ]
    file = folder / "clicks.csv"
    file.write_text("\n".join([HEADER, *lines, *rows]) + "\n")
    return DataConfig(source=str(file))


def test_columns_have_types_roles_and_reasons(tmp_path: Path) -> None:
    config = clicks(tmp_path)
    (file,) = inspect_data(config).files
    assert [(column.name, column.kind, column.role) for column in file.columns] == [
        ("customer_id", "whole numbers", "users"),
        ("product_id", "whole numbers", "candidates"),
        ("ts", "whole numbers", "times"),
        ("device", "text", None),
        ("note", "text", None),
    ]
    assert file.columns[0].why == "usual name"
    assert file.columns[3].distinct == 2
    named = DataConfig(source=config.source, user_column="product_id", candidate_column="note")
    (file,) = inspect_data(named).files
    assert file.columns[1].why == "--user-column"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], "whole numbers"),
        (["1.0", "2.0", "nan"], "whole numbers"),
        (["1.5", "n/a"], "numbers"),
        (["00012", "13"], "text"),
        (["True", "false"], "true or false"),
        (["2024-05-01", "2024-05-01T10:00:00Z"], "times"),
        (["", "NULL"], "empty"),
    ],
)
def test_type_of_a_column_is_that_of_its_values(
    values: list[str], kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.csv"
    rows = [f"{number},a,{value}" for number, value in enumerate(values)]
    file.write_text("\n".join(["user_id,item_id,other", *rows]) + "\n")
    (columns,) = inspect_data(DataConfig(source=str(file))).files
    assert columns.columns[2].kind == kind


def test_catalogue_and_users_have_columns_of_their_own(tmp_path: Path) -> None:
    config = clicks(tmp_path)
    catalogue, users = tmp_path / "products.csv", tmp_path / "users.csv"
    catalogue.write_text(
        "product_id,name,price\n" + "".join(f"{i},n{i},{i}.5\n" for i in range(50))
    )
    users.write_text("customer_id,age\n0,30\n1,40\n")
    inspection = inspect_data(
        DataConfig(source=config.source, candidates_file=str(catalogue), users_file=str(users))
    )
    assert [file.part for file in inspection.files] == ["interactions", "candidates", "users"]
    assert [column.role for column in inspection.files[1].columns] == [
        "candidates",
        "titles",
        "attribute",
    ]
    assert inspection.facts is not None
    assert inspection.facts.popularity.without == 10
    price = next(a for a in inspection.facts.attributes if a.name == "price")
    assert (price.kind, price.known, price.examples) == ("number", 50, ("0.5 to 49.5",))


def test_faults_are_listed_and_the_other_rows_counted(tmp_path: Path) -> None:
    rows = [",1,1700000000,tv,x", "7,2,yesterday,tv,x", "8,,1700000000,tv,x"]
    inspection = inspect_data(clicks(tmp_path, rows))
    assert inspection.rows == 363
    assert {fault.name.partition(" holds")[0]: fault.where for fault in inspection.faults} == {
        "column 'customer_id' is empty": "line 362",
        "column 'product_id' is empty": "line 364",
        "column 'ts'": "line 363",
    }
    assert inspection.problem is not None
    assert "3 of 363 rows cannot be used" in inspection.problem
    assert inspection.facts is not None
    assert inspection.facts.interactions == 360


def test_configured_share_of_faults_is_no_problem(tmp_path: Path) -> None:
    config = clicks(tmp_path, [",1,1700000000,tv,x"])
    inspection = inspect_data(DataConfig(source=config.source, skip_bad_rows=0.01))
    assert inspection.problem is None
    assert inspection.facts is not None
    assert inspection.facts.skipped == {"column 'customer_id' is empty": 1}


def test_data_without_a_good_row_has_no_numbers(tmp_path: Path) -> None:
    config = clicks(tmp_path, [",1,1700000000,tv,x", "7,,1700000000,tv,x"], num_users=0)
    inspection = inspect_data(config)
    assert inspection.facts is None
    assert [fault.count for fault in inspection.faults] == [1, 1]
    config = DataConfig(source=config.source, skip_bad_rows=1.0)
    assert "2 of 2 rows cannot be used" in str(inspect_data(config).problem)
    with pytest.raises(ValueError, match="skip_bad_rows must be a share above 0, at most 1, got 2"):
        DataConfig(skip_bad_rows=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column of users"),
        ("user_id,item_id\n1,2\n", "a split needs at least 3"),
        ("user_id,item_id\n1,2\n1,2\n1,2\n1,2\n", "1 different interactions"),
        ('user_id,item_id\n1,"2\n3,4\n', "line 2"),
    ],
)
def test_problem_is_the_message_of_an_export(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(text)
    inspection = inspect_data(DataConfig(source=str(file)))
    assert inspection.problem is not None
    assert message in inspection.problem
    assert [column.name for column in inspection.files[0].columns] == text.split("\n")[0].split(",")


def test_missing_ratings_are_a_problem_if_a_training_weighs_them(tmp_path: Path) -> None:
    train = TrainConfig(loss="in_batch_softmax", rating_weight=1.0)
    inspection = inspect_data(clicks(tmp_path), train)
    assert inspection.problem is not None
    assert "ratings" in inspection.problem
    assert inspection.split is None


def test_columns_of_a_database_need_its_first_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as database:
        database.execute("CREATE TABLE t AS SELECT range AS user_id, 1 AS item_id FROM range(20)")
    monkeypatch.setattr(columns, "_SAMPLE", 7)
    source = f"duckdb:///{tmp_path}/shop.duckdb"
    (file,) = describe_columns(DataConfig(source=source, query="FROM t"))
    assert file.sampled == 7
    assert [column.role for column in file.columns] == ["users", "candidates"]


def test_missing_file_is_a_problem(tmp_path: Path) -> None:
    inspection = inspect_data(DataConfig(source=str(tmp_path / "none.csv")))
    assert inspection.problem is not None
    assert "no such file" in inspection.problem


def test_split_is_that_of_an_export(small_dataset: Dataset) -> None:
    """The words come from the functions that an export calls, so they cannot differ."""
    config = small_dataset.source or DataConfig(
        source="sample", sample_users=200, sample_candidates=50, sample_interactions=4000
    )
    from shortlist.export.data import load

    inspection, dataset = inspect_data(config), load(config)
    split = configured_split(dataset, TrainConfig())
    assert inspection.split is not None
    assert inspection.split.method == split.method
    assert inspection.split.reason == split.reason
    assert inspection.split.training == len(split.training)
    assert inspection.split.held_out == held_out_facts(dataset, split)
    sizes = [f"{len(part):,}" for part in (split.training, split.validation, split.held_out)]
    assert inspection.split.parts == (
        f"{sizes[0]} interactions to train on, {sizes[1]} to decide when to stop, {sizes[2]} held "
        "out"
    )
    assert inspection.files == ()


def test_repeats_lead_to_the_protocol_with_seen_candidates(tmp_path: Path) -> None:
    rows = [f"{user},{(user + 1) % 40},1700009999,tv,x" for user in range(0, 120, 2)]
    advice = inspect_data(clicks(tmp_path, rows)).advice
    assert advice[0].arguments == ("--protocol", "seen_kept")


def test_columns_that_are_not_read_lead_to_options(tmp_path: Path) -> None:
    texts = " ".join(advice.text for advice in inspect_data(clicks(tmp_path)).advice)
    assert "--context-column device" in texts
    assert "'note'" not in texts  # it has a single value
    assert "--candidates FILE" in texts


@pytest.mark.parametrize(
    ("header", "values", "advice"),
    [
        ("event_type", ["view", "cart"], "--event-column event_type --event-weights view=1,…"),
        ("Quantity", ["1", "20", "-3"], "--weight-column Quantity"),
    ],
)
def test_events_and_amounts_lead_to_weights(
    header: str, values: list[str], advice: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.csv"
    rows = [f"{n % 20},{n % 7},{values[n % len(values)]}" for n in range(200)]
    file.write_text("\n".join([f"user_id,item_id,{header}", *rows]) + "\n")
    texts = [piece.text for piece in inspect_data(DataConfig(source=str(file))).advice]
    assert any(advice in text for text in texts)
    assert not any("--context-column" in text for text in texts)


def test_unusual_rows_are_named(tmp_path: Path) -> None:
    rows = ["500,1,1700000000,tv,x"] * 1500
    texts = " ".join(advice.text for advice in inspect_data(clicks(tmp_path, rows)).advice)
    assert "1,499 of 1,860 interactions equal another" in texts
    assert "one user has 1,500 of 1,860 interactions" in texts


def dataset(users: list[int], candidates: list[int], times: list[int] | None) -> Dataset:
    names = tuple(str(number) for number in range(max(users + candidates) + 1))
    return Dataset(
        name="own",
        user_ids=names[: max(users) + 1],
        candidate_ids=names,
        titles=names,
        user_positions=np.array(users, np.int32),
        candidate_positions=np.array(candidates, np.int32),
        timestamps=None if times is None else np.array(times, np.int64),
    )


def test_counts_are_those_of_the_data() -> None:
    facts = profile_of(
        dataset([0, 0, 0, 1, 1, 2], [3, 3, 3, 1, 3, 3], [0, 0, 86_400, 5, 6, 864_000])
    )
    assert facts.repeats == 2
    assert facts.duplicates == 1
    assert (facts.first, facts.last) == ("1970-01-01 00:00:00", "1970-01-11 00:00:00")
    assert facts.periods[0] == ("1970-01-01", 4)
    assert sum(count for _, count in facts.periods) == 6
    assert [(str(band), band.members, band.interactions) for band in facts.per_user.bands] == [
        ("1", 1, 1),
        ("2", 1, 2),
        ("3–5", 1, 3),
    ]
    assert (facts.per_user.median, facts.per_user.most) == (2, 3)
    assert facts.popularity.without == 2
    assert facts.popularity.curve == ((1, 5), (2, 1))
    assert facts.popularity.top[0.1] == pytest.approx(5 / 6)
    assert facts.popularity.shares == "the top 1% have 83% and the top 10% have 83%"


def test_data_without_times_has_no_period() -> None:
    facts = profile_of(dataset([0, 0], [1, 1], None))
    assert facts.first is None
    assert facts.periods == ()
    assert facts.duplicates == 0
    assert facts.repeats == 1


def test_long_times_are_summed_up() -> None:
    days = list(range(0, 4000, 7))
    facts = profile_of(dataset([0] * len(days), [0] * len(days), [86_400 * day for day in days]))
    assert len(facts.periods) <= 40
    assert sum(count for _, count in facts.periods) == len(days)
