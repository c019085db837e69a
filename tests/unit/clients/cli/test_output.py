from dataclasses import dataclass

import pytest

from shortlist.clients.cli.output import megabytes, number, short_count, step, table, write_json

ROWS = [["name", "count", "note"], ["a", "1,000", "x"], ["longer", "7", ""]]


def test_table_aligns_text_left_and_numbers_right() -> None:
    assert table(ROWS, text=(0, 2)).splitlines() == [
        "name    count  note",
        "a       1,000  x",
        "longer      7",
    ]


def test_markdown_table_aligns_its_source_too() -> None:
    assert table(ROWS, text=(0, 2), markdown=True).splitlines() == [
        "| name   | count | note |",
        "| ------ | ----: | ---- |",
        "| a      | 1,000 | x    |",
        "| longer |     7 |      |",
    ]


def test_markdown_rule_is_at_least_three_characters() -> None:
    assert table([["k", "n"]], markdown=True).splitlines()[1] == "| --- | --: |"


def test_json_takes_dataclasses_and_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass
    class Row:
        name: str

    write_json([Row("Amélie")], indent=None)
    assert capsys.readouterr().out == '[{"name": "Amélie"}]\n'
    with pytest.raises(TypeError, match="set has no JSON form"):
        write_json({1})


def test_numbers_and_what_is_unknown() -> None:
    assert (number(0.25, ".1f"), number(None), number(None, unknown="")) == ("0.2", "-", "")
    assert (megabytes(1_250_000_000), megabytes(None)) == ("1,250.0", "-")
    assert [short_count(n) for n in (0, 1682, 20_000, 3_000_000)] == ["0", "1,682", "20k", "3M"]
    assert step("index ivf", 1.25, "100 leaves") == "index ivf             1.2 s  100 leaves"
