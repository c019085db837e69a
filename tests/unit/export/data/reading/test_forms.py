"""A table reads identically in every form that it can be written in."""

import bz2
import contextlib
import gzip
import json
import lzma
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export.data import DataConfig, DataError, Dataset, load
from shortlist.export.data.fingerprint import dataset_fingerprint
from shortlist.export.data.reading.database import run_query
from shortlist.export.data.reading.values import MISSING
from shortlist.export.data.sources.tabular import columns_of

Rows = list[tuple[str, str, int]]
Write = Callable[[Rows, Path], Path]
COLUMNS = ("user_id", "item_id", "ts")


def text(rows: Rows, delimiter: str = ",", end: str = "\n") -> str:
    def line(cells: tuple[Any, ...]) -> str:
        return delimiter.join('"{}"'.format(str(cell).replace('"', '""')) for cell in cells)

    return end.join([delimiter.join(COLUMNS), *map(line, rows), ""])


def delimited(name: str, delimiter: str, encoding: str = "utf-8", end: str = "\n") -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        path = folder / name
        path.write_bytes(text(rows, delimiter, end).encode(encoding))
        return path

    return write


def packed(name: str, pack: Callable[[bytes], bytes]) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        path = folder / name
        path.write_bytes(pack(text(rows).encode()))
        return path

    return write


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def zipped(rows: Rows, folder: Path) -> Path:
    path = folder / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/part-0.csv", text(rows[:1]))
        archive.writestr("inner/part-1.csv", text(rows[1:]))
        archive.writestr("__MACOSX/._part-1.csv", b"\0\0")
    return path


def table(rows: Rows) -> pa.Table:
    return pa.table({name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)})


def parquet(rows: Rows, folder: Path) -> Path:
    pyarrow.parquet.write_table(table(rows), folder / "t.parquet")
    return folder / "t.parquet"


def feather(rows: Rows, folder: Path) -> Path:
    pyarrow.feather.write_feather(table(rows), str(folder / "t.feather"))
    return folder / "t.feather"


def json_lines(rows: Rows, folder: Path) -> Path:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return folder / "t.jsonl"


def spark(rows: Rows, folder: Path) -> Path:
    path = folder / "spark"
    for user in {row[0] for row in rows}:
        inner = path / f"part={len(list(path.glob('*'))) if path.exists() else 0}"
        inner.mkdir(parents=True)
        pyarrow.parquet.write_table(
            table([row for row in rows if row[0] == user]), inner / "p.parquet"
        )
    (path / "_SUCCESS").touch()
    (path / ".p.parquet.crc").write_bytes(b"crc")
    return path


FORMS: dict[str, Write] = {
    "csv": delimited("t.csv", ","),
    "crlf": delimited("t.csv", ",", end="\r\n"),
    "semicolon": delimited("t.csv", ";"),
    "tab": delimited("t.tsv", "\t"),
    "pipe": delimited("t.txt", "|"),
    "byte order mark": delimited("t.csv", ",", "utf-8-sig"),
    "utf-16": delimited("t.csv", ",", "utf-16"),
    "gz": packed("t.csv.gz", gzip.compress),
    "bz2": packed("t.csv.bz2", bz2.compress),
    "xz": packed("t.csv.xz", lzma.compress),
    "zst": packed("t.csv.zst", zstd),
    "zip": zipped,
    "parquet": parquet,
    "feather": feather,
    "json lines": json_lines,
    "folder": spark,
}

ids = (
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
    .filter(lambda value: value not in MISSING)
    .map(lambda value: f"x{value}")
)


@settings(deadline=None, max_examples=8)
@given(rows=st.lists(st.tuples(ids, ids, st.integers(10**9, 2 * 10**9)), min_size=2, max_size=12))
def test_a_table_reads_identically_in_every_form(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read = {}
    for name, write in FORMS.items():
        folder = tmp_path_factory.mktemp("form")
        read[name] = dataset_fingerprint(load(DataConfig(source=str(write(rows, folder)))))
        shutil.rmtree(folder)
    assert set(read.values()) == {read["csv"]}, read


ROWS: Rows = [("1", "a", 1_700_000_000), ("2", "b", 1_700_000_100), ("2", "a", 1_700_000_200)]


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (dataset.user_ids[user], dataset.candidate_ids[candidate])
        for user, candidate in zip(dataset.user_positions, dataset.candidate_positions, strict=True)
    ]


def test_several_sources_and_patterns_are_read_as_one(tmp_path: Path) -> None:
    for name, rows in (("a.csv", ROWS[:1]), ("b.csv", ROWS[1:])):
        (tmp_path / name).write_text(text(rows))
    config = DataConfig(source=str(tmp_path / "a.csv"), more_sources=(str(tmp_path / "b.csv"),))
    assert len(pairs(load(config))) == 3
    assert pairs(load(DataConfig(source=str(tmp_path / "?.csv")))) == pairs(load(config))
    (tmp_path / "b.csv").write_text(text(ROWS[1:]).replace("2", "", 1))
    (tmp_path / "b.csv").write_text("user_id,item_id,ts\n2,b,5\n,a,6\n")
    with pytest.raises(DataError, match=r"a\.csv and 1 more, b\.csv, line 3, column 'user_id'"):
        load(config)


def test_columns_in_the_names_of_folders_are_columns(tmp_path: Path) -> None:
    for device in ("phone", "big%20screen"):
        folder = tmp_path / f"device={device}"
        folder.mkdir()
        (folder / "part-0.csv").write_text(text(ROWS))
    dataset = load(DataConfig(source=str(tmp_path), context_columns=("device",)))
    assert dataset.context["device"].values == ("big screen", "phone")
    assert dataset.num_interactions == 6


@pytest.mark.parametrize("query", ["SELECT who AS user_id, item AS item_id FROM t", None])
def test_databases_are_asked(query: str | None, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE t (who, item)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(1, "a"), ("x", 2)])
    database.close()
    config = DataConfig(source=f"sqlite:///{tmp_path}/shop.db", query=query)
    if query is None:
        with pytest.raises(DataError, match=r"shop\.db needs a query: --query 'SELECT"):
            load(config)
        return
    assert pairs(load(config)) == [("1", "a"), ("x", "2")]
    faulty = DataConfig(source=config.source, query="SELECT none FROM t")
    with pytest.raises(DataError, match="no such column: none; check the address and --query"):
        load(faulty)


@pytest.mark.parametrize("address", ["sqlite:///{}/shop.db", "duckdb:///{}/shop.duckdb"])
def test_a_query_can_give_its_first_rows_alone(address: str, tmp_path: Path) -> None:
    make = "CREATE TABLE t AS SELECT 1 AS who UNION ALL SELECT 2 UNION ALL SELECT 3"
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as database:
        database.execute(make)
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as lite:
        lite.execute(make)
        lite.commit()
    for limit, rows in ((2, 2), (5, 3), (None, 3)):
        answer = run_query(address.format(tmp_path), "SELECT who FROM t", limit=limit)
        assert sum(part.num_rows for part in answer.parts) == rows
        assert answer.columns == ("who",)


@pytest.mark.filterwarnings("ignore:Feather V1 files:DeprecationWarning")
def test_the_first_version_of_feather_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.feather"
    pyarrow.feather.write_feather(table(ROWS), str(path), version=1)
    assert columns_of(path) == COLUMNS
    assert len(pairs(load(DataConfig(source=str(path))))) == 3


def test_names_of_columns_need_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = feather(ROWS, tmp_path)
    monkeypatch.delattr(pyarrow.feather, "read_table")
    assert columns_of(path) == COLUMNS


def test_passwords_are_not_recorded() -> None:
    config = DataConfig(source="postgresql://me:secret@host/shop", query="SELECT 1")
    assert config.as_json()["source"] == "postgresql://me@host/shop"


def test_stores_are_read_by_their_address() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/clicks/part-0.csv", text(ROWS).encode())
    try:
        assert load(DataConfig(source="memory://clicks")).num_interactions == 3
        assert load(DataConfig(source="memory://clicks/part-0.csv")).num_interactions == 3
        with pytest.raises(DataError, match=r"no such file: memory://clicks/none\.csv"):
            load(DataConfig(source="memory://clicks/none.csv"))
    finally:
        store.rm("/clicks", recursive=True)


def test_versions_keep_how_their_data_was_read() -> None:
    config = DataConfig(
        source="/a.csv",
        more_sources=("/b.csv",),
        delimiter=";",
        skip_bad_rows=0.1,
        attribute_types=("sku=text",),
    )
    assert DataConfig.from_json(json.loads(json.dumps(config.as_json()))) == config
