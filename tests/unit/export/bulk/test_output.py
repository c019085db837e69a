import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.clients.errors import ShortlistError
from shortlist.export.bulk import output as module
from shortlist.export.bulk.output import Format, open_output
from shortlist.export.bulk.run import BulkCounts, run_bulk
from shortlist.serving.errors import RepositoryError

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("candidate_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("known_user", pa.bool_()),
    ]
)
PLAN = {"servable": "m/1", "k": 2}


def users(count: int) -> pa.Table:
    return pa.table({"user_id": [f"u{i}" for i in range(count)]})


def answer(queries: pa.RecordBatch) -> pa.RecordBatch:
    """Two candidates for each user; none for u3, and u4 is unknown."""
    names = queries.column("user_id").to_pylist()
    rows = [
        {
            "user_id": name,
            "candidate_ids": [] if name == "u3" else [f"{name}a", f"{name}b"],
            "scores": [] if name == "u3" else [2.0, 1.0],
            "known_user": name != "u4",
        }
        for name in names
    ]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def run(folder: Path, count: int = 10, *, answer: Any = answer, **options: Any) -> BulkCounts:
    opening = {"form": "parquet", "overwrite": False, **options}
    plan = opening.pop("plan", PLAN)
    with open_output(folder, plan, **opening) as output:
        return run_bulk(
            answer,
            SCHEMA,
            users(count),
            output,
            part_rows=4,
            batch_rows=3,
            progress=lambda counts: None,
        )


def asked_users(table: pa.Table) -> list[str]:
    names: list[str] = table.column("user_id").to_pylist()
    return names


def test_parts_are_read_as_one_table_in_the_order_of_the_queries(tmp_path: Path) -> None:
    counts = run(tmp_path / "recs.parquet")

    table = pyarrow.parquet.read_table(tmp_path / "recs.parquet")
    assert table.equals(pa.Table.from_batches([answer(users(10).to_batches()[0])]))
    assert counts == BulkCounts(total=10, answered=10, unknown=1, empty=1, parts=3)
    assert (tmp_path / "recs.parquet/_SUCCESS").exists()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_stopped_run_continues_after_its_finished_parts(tmp_path: Path, form: Format) -> None:
    asked: list[str] = []

    def failing(queries: pa.RecordBatch) -> pa.RecordBatch:
        if "u6" in queries.column("user_id").to_pylist():
            raise ShortlistError("the model failed")
        return answer(queries)

    def recorded(queries: pa.RecordBatch) -> pa.RecordBatch:
        asked.extend(queries.column("user_id").to_pylist())
        return answer(queries)

    folder = tmp_path / "recs"
    with pytest.raises(ShortlistError, match="the model failed"):
        run(folder, answer=failing, form=form)
    assert [path.name for path in folder.glob("part-*")] == [f"part-00000.{form}"]
    assert not [*folder.glob("*.tmp"), *folder.glob(".part*"), *folder.glob("_SUCCESS")]
    (folder / ".part-00001.tmp").write_text("of a killed process")

    counts = run(folder, answer=recorded, form=form)

    assert sorted(asked) == sorted(f"u{i}" for i in range(4, 10))
    assert (counts.before, counts.answered, counts.parts) == (4, 6, 3)
    assert not (folder / ".part-00001.tmp").exists()
    if form == "jsonl":
        text = "".join(path.read_text() for path in sorted(folder.glob("part-*")))
        assert [*map(json.loads, text.splitlines())] == answer(
            users(10).to_batches()[0]
        ).to_pylist()


def test_complete_run_asks_nobody_again(tmp_path: Path) -> None:
    run(tmp_path / "recs")

    counts = run(tmp_path / "recs", answer=None)

    assert (counts.before, counts.answered) == (10, 0)


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    run(tmp_path / "recs")

    with pytest.raises(ShortlistError, match=r"recs was begun with k 2, not 3; give the same .*"):
        run(tmp_path / "recs", plan={**PLAN, "k": 3})


def test_overwrite_starts_again(tmp_path: Path) -> None:
    run(tmp_path / "recs")

    counts = run(tmp_path / "recs", 5, plan={**PLAN, "k": 3}, overwrite=True)

    assert (counts.before, counts.answered, counts.parts) == (0, 5, 2)
    table = pyarrow.parquet.read_table(tmp_path / "recs")
    assert asked_users(table) == [f"u{i}" for i in range(5)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_with_other_files_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(ShortlistError, match=r"other files, such as thesis\.txt"):
        run(tmp_path, overwrite=overwrite)

    assert (tmp_path / "thesis.txt").exists()


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with (
        open_output(tmp_path, PLAN, form="parquet", overwrite=False),
        pytest.raises(RepositoryError, match="locked by another run"),
    ):
        run(tmp_path)


def test_full_disk_is_one_line_and_leaves_finished_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, path: Path, schema: pa.Schema) -> None:
            self.path = path
            path.write_bytes(bytes(1000))

        def write(self, batch: pa.RecordBatch) -> None:
            raise OSError(errno.ENOSPC, "Error writing bytes to file")

        def close(self) -> None:
            """Nothing is left to write."""

    def full_after_one(path: Path, schema: pa.Schema) -> Any:
        return Full(path, schema) if "00001" in path.name else module._Parquet(path, schema)

    monkeypatch.setitem(module._WRITERS, "parquet", full_after_one)
    with pytest.raises(ShortlistError) as caught:
        run(tmp_path / "recs")

    assert str(caught.value) == (
        f"cannot write {tmp_path}/recs/part-00001.parquet: No space left on device; finished "
        "parts stay: make room, then run the same command again"
    )
    assert {path.name for path in (tmp_path / "recs").iterdir()} == {
        "_shortlist.json",
        ".lock",
        "part-00000.parquet",
    }


def test_no_more_than_a_few_batches_are_computed_ahead(tmp_path: Path) -> None:
    started: list[int] = []
    most = 0

    def counted(queries: pa.RecordBatch) -> pa.RecordBatch:
        started.append(queries.num_rows)
        return answer(queries)

    def progress(counts: BulkCounts) -> None:
        nonlocal most
        most = max(most, sum(started) - counts.answered)

    with open_output(tmp_path / "recs", PLAN, form="parquet", overwrite=False) as output:
        run_bulk(
            counted,
            SCHEMA,
            users(200),
            output,
            part_rows=50,
            batch_rows=2,
            progress=progress,
        )

    assert most <= 10  # five batches
