from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.clients.errors import ShortlistError
from shortlist.export.bulk.engine import BulkServable
from shortlist.export.bulk.queries import (
    BulkQueries,
    fingerprint,
    read_candidates,
    read_users,
    with_histories,
)
from shortlist.export.data import DataConfig, DataError, load

SERVABLE = cast(
    BulkServable,
    SimpleNamespace(users=lambda: pa.array(["a", "b"]), candidates=lambda: pa.array(["x"])),
)


def read(path: Path | str, **config: Any) -> BulkQueries:
    return read_users(str(path), SERVABLE, DataConfig(**config))


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def ids(queries: BulkQueries) -> list[str]:
    names: list[str] = queries.table.column(0).to_pylist()
    return names


def test_all_stands_for_what_the_servable_knows() -> None:
    assert ids(read("all")) == ["a", "b"]
    assert read_candidates("all", SERVABLE, DataConfig()).table.to_pydict() == {
        "candidate_id": ["x"]
    }


def test_users_of_a_table_are_asked_once_in_its_order(tmp_path: Path) -> None:
    path = written(tmp_path, "crm.csv", "CustomerID,age\n9,1\n12,2\n9,3\n")

    queries = read(path)

    assert ids(queries) == ["9", "12"]
    assert queries.notes[-1] == "crm.csv: rows that repeat an id: 1; each is asked once"


def test_users_of_parquet_may_be_numbers(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"who": [3, 1]}), tmp_path / "users.parquet")

    assert ids(read(tmp_path / "users.parquet", user_column="who")) == ["3", "1"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("users.csv", "name,age\nx,1\n", "no column of users with a usual name, only name, age"),
        ("users.csv", "", "is empty"),
        ("users.csv", "user_id\n", "no rows"),
        ("users.csv", "user_id,a\n,1\nx,2\n", "line 2"),
        ("users.jsonl", '{"user_id": "1", "history": "x"}\n', "line 1: 'history' looks like"),
    ],
)
def test_faulty_file_is_an_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ShortlistError, match=message):
        read(written(tmp_path, name, text))


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv"):
        read(tmp_path / "gone.csv")


def test_json_lines_are_queries_as_the_client_takes_them(tmp_path: Path) -> None:
    lines = (
        '{"user_id": "1", "history": ["a", "b"], "ages": [null, 5], "features": {"n": [1, "x"]}}\n'
        "\n"
        '{"history": ["c"], "weights": [2]}\n'
        '{"user_id": "3"}\n'
    )

    table = read(written(tmp_path, "queries.jsonl", lines)).table

    assert table.to_pylist() == [
        {
            "user_id": "1",
            "history": ["a", "b"],
            "ages": [-1.0, 5.0],
            "weights": [1.0, 1.0],
            "features": [("n", ["1", "x"])],
        },
        {"user_id": "", "history": ["c"], "ages": [-1.0], "weights": [2.0], "features": []},
        {"user_id": "3", "history": [], "ages": [], "weights": [], "features": []},
    ]


EVENTS = """user_id,candidate_id,timestamp,kind
b,x,1700000300,buy
a,y,1700000200,view
a,x,1700000100,view
z,x,1700000100,view
"""


def test_histories_hold_the_events_oldest_first_with_their_ages(tmp_path: Path) -> None:
    path = written(tmp_path, "events.csv", EVENTS)
    config = DataConfig(source=str(path), event_column="kind", event_weights=("view=1", "buy=3"))
    users = BulkQueries(table=pa.table({"user_id": ["b", "c", "a"]}))

    queries = with_histories(users, load(config), None)

    assert queries.table.to_pylist() == [
        {"user_id": "b", "history": ["x"], "ages": [0.0], "weights": [3.0]},
        {"user_id": "c", "history": [], "ages": [], "weights": []},
        {"user_id": "a", "history": ["x", "y"], "ages": [200.0, 100.0], "weights": [1.0, 1.0]},
    ]
    assert queries.notes[-2:] == (
        "events.csv: 3 events of 2 of the 3 users",
        "events.csv: users that are not in --users, so not asked: 1",
    )


def test_ages_count_from_now_which_no_event_may_follow(tmp_path: Path) -> None:
    dataset = load(DataConfig(source=str(written(tmp_path, "events.csv", EVENTS))))
    users = BulkQueries(table=pa.table({"user_id": ["b"]}))

    queries = with_histories(users, dataset, 1_700_000_301.5)

    assert queries.table.column("ages").to_pylist() == [[1.5]]
    with pytest.raises(DataError, match="events later than --now 1700000250: 1, the last at"):
        with_histories(users, dataset, 1_700_000_250)


def test_histories_come_from_one_place() -> None:
    own = BulkQueries(table=pa.table({"user_id": ["a"], "history": [["x"]]}))

    with pytest.raises(ShortlistError, match="leave out --history"):
        with_histories(own, load(DataConfig(source="sample")), None)


def test_fingerprint_tells_queries_apart() -> None:
    def digest(*users: str) -> str:
        return fingerprint(BulkQueries(table=pa.table({"user_id": users})))

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab")}) == 3
