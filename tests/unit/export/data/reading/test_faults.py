"""Faults of all kinds are counted over the whole file and told at once, with their lines."""

import random
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export.data import DataConfig, DataError, Dataset, load
from shortlist.export.data.reading.columnar import JsonLines


def read(folder: Path, content: str | bytes, name: str = "own.csv", **options: Any) -> Dataset:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(DataConfig(source=str(path), **options))


FAULTY = (
    "user_id,item_id,ts\n"
    "1,a,2024-05-01\n"
    ",a,2024-05-01\n"
    "2,b\n"
    "3,c,soon\n"
    "4,d,2024-05-02,x\n"
    "nan,a,2024-05-03\n"
    "5,e,2024-05-04\n"
)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, FAULTY)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("own.csv: 5 of 7 rows cannot be used")
    assert "  1 rows: has 2 fields instead of 3 (user_id, item_id, ts) (line 4)" in lines
    assert "  1 rows: has 4 fields instead of 3 (user_id, item_id, ts) (line 6)" in lines
    assert "  2 rows: column 'user_id' is empty (lines 3 and 7)" in lines
    assert any("holds 'soon', which is neither" in line and "(line 5)" in line for line in lines)
    assert lines[-1] == "  --skip-bad-rows 0.715 leaves 5 of 7 rows out"


def test_bad_rows_are_left_out_and_recorded(tmp_path: Path) -> None:
    dataset = read(tmp_path, FAULTY, skip_bad_rows=0.715)
    assert dataset.user_ids == ("1", "5")
    assert dataset.candidate_ids == ("a", "e")
    assert sum(dataset.skipped.values()) == 5
    with pytest.raises(DataError, match=r"allows 0.5 of the rows; --skip-bad-rows 0.715"):
        read(tmp_path, FAULTY, skip_bad_rows=0.5)


def test_the_same_fault_of_several_files_is_counted_together(tmp_path: Path) -> None:
    good = "".join(f"{n},a\n" for n in range(20))
    for name, bad in (("a.csv", 2), ("b.csv", 3)):
        rows = f"user_id,item_id\n{good}" + "1\n" * bad + ",a\n" * bad
        (tmp_path / name).write_text(rows)
    dataset = load(DataConfig(source=str(tmp_path / "*.csv"), skip_bad_rows=0.5))
    assert dict(dataset.skipped) == {
        "has 1 fields instead of 2 (user_id, item_id)": 5,
        "column 'user_id' is empty": 5,
    }
    with pytest.raises(DataError) as caught:
        load(DataConfig(source=str(tmp_path / "*.csv")))
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert sum("has 1 fields" in line for line in lines) == 1
    places = "a.csv, line 22, a.csv, line 23, b.csv, line 22 and more"
    assert f"5 rows: has 1 fields instead of 2 (user_id, item_id) ({places})" in lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'user_id,item_id\n1,a\n2,"b\n3,c\n4,d\n',
            r"line 3: a quote opens there and is not closed",
        ),
        (b'user_id,item_id\n1,a\n2,"b"c\n', r"line 3 has text after a closing quote"),
        (b"user_id,item_id\n1,a\n2,b\0c\n", r"line 3, column 'item_id' holds a NUL"),
        (b'user_id,item_id\n1,a\n2,"b\n3,c"\n', r"line 3, column 'item_id' holds a line break"),
        (
            b"user_id,item_id\n1,a\n2," + b"x" * 70_000,
            r"line 3, column 'item_id' is longer than 64",
        ),
        (b"user_id,item_id\n1,a\n2," + b"x" * 5_000_000, r"line 3 is longer than 4 MiB"),
        (
            "user_id,item_id\n1,é\n2,".encode() + b"\xe9\n",
            r"line 3 is not UTF-8 \(byte 0xe9 at 3\)",
        ),
        (b"a\xff\0\1\2user_id", r"is not text; give delimited text"),
        (b"1,a\n2,b\n", r"no column of users.*only 1, a; name it.*its first line seems to be data"),
        (b"1,2\n2,3\n", r"its first line seems to be data: add a line with names"),
        (b"user_id,user_id,item_id\n1,2,3\n", r"has several columns 'user_id'; rename"),
        (b"user_id,item_id\n", r"has no rows"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    if content.startswith(b"1,a"):
        message = r"no column of users with a usual name, only 1, a"
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_lines_are_counted_over_quoted_line_breaks_and_lost_rows(tmp_path: Path) -> None:
    content = 'user_id,note,item_id\n1,"two\nlines",a\n\n2,x\n,y,b\n'
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert "(line 5)" in str(caught.value)
    assert "column 'user_id' is empty (line 6)" in str(caught.value)


def test_blank_lines_before_the_header_do_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, "\n\nuser_id,item_id\n1,a\n").user_ids == ("1",)


def test_a_stray_quote_in_a_column_that_is_not_read_does_not_swallow_rows(tmp_path: Path) -> None:
    rows = [
        "user_id,item_id,note",
        '1,a,"big',
        *(f"{n},b,x" for n in range(9)),
        '2,c,small"',
        "3,d,",
    ]
    with pytest.raises(
        DataError, match=r"line 2: a value in quotes .* holds whole rows; was a quote"
    ):
        read(tmp_path, "\n".join(rows))
    notes = '1,a,"Dear Sir,\nthank you, and\nmany, many, many\ngreetings"\n2,b,\n'
    assert read(tmp_path, f"user_id,item_id,note\n{notes}").num_interactions == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", ["sep=;", "SEP=;"])
def test_the_first_line_names_the_delimiter(
    mark: str, encoding: str, end: str, tmp_path: Path
) -> None:
    rows = [mark, "user_id;item_id;note", "1;a,b;,,", "1;c;", "2;d;,", ""]
    dataset = read(tmp_path, end.join(rows).encode(encoding))
    assert dataset.candidate_ids == ("a,b", "c", "d")
    for row, message in (
        ("3;b", "has 2 fields"),
        (";b;", "column 'user_id' is empty"),
    ):
        with pytest.raises(DataError, match=f"line 6,? {message}"):
            read(tmp_path, end.join([*rows[:-1], row, ""]).encode(encoding))
    with pytest.raises(DataError, match="has no column of users"):
        read(tmp_path, end.join(rows).encode(encoding), delimiter=",")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_stray_quotes_are_found_with_every_line_end(
    end: str, encoding: str, tmp_path: Path
) -> None:
    rows = ["user_id,item_id,note", '1,a,"big', *(f"{n},b,x" for n in range(9)), '2,c,small"', ""]
    with pytest.raises(DataError, match=r"line 2: a value in quotes .* holds whole rows"):
        read(tmp_path, end.join(rows).encode(encoding))


def test_json_is_searched_for_malformed_lines_only_if_a_row_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[str] = []
    search = JsonLines.malformed

    def malformed(file: JsonLines) -> np.ndarray:
        searches.append(file.location.name)
        return search(file)

    monkeypatch.setattr(JsonLines, "malformed", malformed)
    good = '{"user_id": 1, "item_id": "a"}\n{"user_id": 2, "item_id": "b", "note": null}\n'
    assert read(tmp_path, good, "good.jsonl").num_interactions == 2
    assert searches == []
    for name, lines in (("a.jsonl", good), ("b.jsonl", f'{good}{{"user_id": 3, "item\n{good}')):
        (tmp_path / name).write_text(lines)
    both = DataConfig(source=str(tmp_path / "[ab].jsonl"))
    with pytest.raises(DataError, match=r"b\.jsonl, line 3 is not JSON"):
        load(both)
    assert searches == ["b.jsonl"]
    with pytest.raises(DataError, match=r"line 3, column 'user_id' is empty"):
        read(tmp_path, f"{good}{{}}\n", "empty.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknown_candidates": "drop"}, "needs a catalogue: give candidates_file"),
        ({"attribute_types": ("sku=text",)}, "there is no attribute 'sku', only none at all"),
        ({"user_column": "item_id"}, "users and candidates cannot share the column 'item_id'"),
        ({"context_columns": ("nope",)}, "has no column 'nope', only user_id, item_id"),
        ({"encoding": "klingon"}, "unknown encoding 'klingon'; give one such as utf-8"),
        ({"query": "SELECT 1"}, "--query needs a database as --data"),
        ({"more_sources": ("sample",)}, "sample has none of the endings|no such file: sample"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "user_id,item_id\n1,a\n", **options)


def test_named_data_is_read_alone() -> None:
    with pytest.raises(DataError, match=r"sample cannot be read together with a\.csv"):
        load(DataConfig(source="sample", more_sources=("a.csv",)))


def test_mixed_line_ends_are_read(tmp_path: Path) -> None:
    dataset = read(tmp_path, "user_id,item_id\r\n1,a\r\n2,b\n3,c\r\n4,d\n")
    assert dataset.num_interactions == 4


def test_columns_that_are_not_read_need_not_decode(tmp_path: Path) -> None:
    content = "user_id,item_id,é\n1,a,ü\n".encode() + b"2,b,\xfc\n"
    assert read(tmp_path, content).num_interactions == 2


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["12550.0", "7.0"], ("7", "12550")),
        (["12550.0", "b"], ("12550.0", "b")),
        (["007", "7"], ("007", "7")),
        (["+5", "-5"], ("+5", "-5")),
        (["9223372036854775807", "1"], ("1", "9223372036854775807")),
        (["a b ", " a b"], ("a b",)),
        (['"nan"', '"NULL"'], ("NULL", "nan")),
    ],
)
def test_ids_keep_their_identity(ids: list[str], expected: tuple[str, ...], tmp_path: Path) -> None:
    rows = "".join(f"{user},a\n" for user in ids)
    assert read(tmp_path, f"user_id,item_id\n{rows}").user_ids == expected


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("customerId,Product_ID,Event Time", "customerId as users, Product_ID as candidates"),
        ("visitorid,MovieID,when", "visitorid as users, MovieID as candidates; not read: when"),
        ("user,user_id,item", "user_id as users, item as candidates; not read: user"),
    ],
)
def test_columns_are_found_by_usual_names(header: str, line: str, tmp_path: Path) -> None:
    dataset = read(tmp_path, f"{header}\n1,2,1700000000\n2,3,1700000100\n")
    assert line in dataset.notes[0]


def test_nearest_candidate_is_told(tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("item_id,title\nSKU-1,x\n")
    with pytest.raises(DataError, match=r"'sku-1' is not in .*c\.csv, whose nearest is 'SKU-1'"):
        read(tmp_path, "user_id,item_id\n1,sku-1\n", candidates_file=str(catalogue))


def test_catalogue_may_name_its_ids_otherwise(tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("code;sku\nX1;00012\nX2;7\n")
    options: dict[str, Any] = {"candidates_file": str(catalogue), "item_id_column": "code"}
    dataset = read(tmp_path, "user_id,item_id\n1,X1\n", **options)
    assert dataset.attributes["sku"].values == (("00012",), ("7",))
    options["attribute_types"] = ("sku=number",)
    with pytest.raises(DataError, match=r"'00012', which is not a number.*sku=text"):
        read(tmp_path, "user_id,item_id\n1,X1\n", **options)


def test_the_first_error_tells_the_options(tmp_path: Path) -> None:
    """The raw Online Retail file: Latin-1, no customer in a quarter of the rows, US dates."""
    chance = random.Random(0)
    rows = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"]
    for row in range(400):
        customer = "" if row % 4 == 0 else str(12346 + chance.randrange(50))
        date = f"{1 + row // 40}/{1 + row % 28}/2010 8:{row % 60:02}"
        code = chance.choice(["85123A", "71053", "POST"])
        rows.append(f"53{row},{code},CAFÉ £5,{row % 7 - 1},{date},2.55,{customer},EIRE")
    content = "\r\n".join([*rows, ""]).encode("latin-1")
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    told = re.findall(r"--([a-z-]+) ('[^']+'|[\d.]+)", str(caught.value))
    assert told == [("timestamp-format", "'%m/%d/%Y %H:%M'"), ("skip-bad-rows", "0.25")]
    dataset = read(
        tmp_path, content, timestamp_format=told[0][1].strip("'"), skip_bad_rows=float(told[1][1])
    )
    assert dataset.num_interactions == 300
    assert dataset.candidate_ids == ("71053", "85123A", "POST")


START = b'user_id,item_id,ts\n1,a,1700000000\n2,"b ""c""",1700000100\n'


@settings(deadline=None, max_examples=60)
@given(
    cut=st.integers(0, len(START)),
    junk=st.binary(max_size=40) | st.text('",;\n\r\t|x1\0é', max_size=40).map(str.encode),
    name=st.sampled_from(
        ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.csv.gz", "t.zip", "t.feather"]
    ),
)
def test_any_bytes_are_read_or_refused(
    cut: int, junk: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = START[:cut] + junk + START[cut:]
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    try:
        dataset = load(DataConfig(source=str(path)))
    except DataError:
        return
    assert dataset.num_interactions >= 1


def test_damaged_columns_do_not_crash_the_process(tmp_path: Path) -> None:
    """Arrow trusts offsets in files; reading one byte too far is a segmentation fault."""
    path = tmp_path / "t.feather"
    table = pa.table({"user_id": ["a" * 50] * 40, "item_id": [str(n) for n in range(40)]})
    pyarrow.feather.write_feather(table, str(path), compression="uncompressed")
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<4i", 0, 50, 100, 150))
    content[at + 4 : at + 8] = struct.pack("<i", 2**30)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.feather is not an Arrow or Feather file"):
        load(DataConfig(source=str(path)))


def test_many_columns_are_listed_on_one_line(tmp_path: Path) -> None:
    header = ",".join(['"two\nlines"', *(f"c{n}" for n in range(100))])
    with pytest.raises(DataError, match=r"only two lines, c0, .*, c18, … \(101 in all\)") as caught:
        read(tmp_path, f"{header}\n")
    assert "\n" not in str(caught.value)
