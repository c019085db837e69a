"""The page of an inspection: complete, self-contained, and safe with hostile data."""

from pathlib import Path

import pytest

from shortlist.export.data.config import DataConfig
from shortlist.export.inspection.inspection import inspect_data
from shortlist.export.inspection.page import render_inspection
from tests.support.chromium import browser

HOSTILE = "<script>window.ran=1</script>"
# Elements beyond the right edge of the window, except inside scrollable ones.
STICKING_OUT = """
[...document.querySelectorAll("body *")]
  .filter(e => !e.closest(".scroll, nav, .spoken"))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + "." + e.className)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    file, catalogue = folder / "plays.csv", folder / "tracks.csv"
    rows = [
        f"{user},{(7 * user + place * place) % 60},{1_600_000_000 + 400_000 * place},{HOSTILE}"
        for user in range(150)
        for place in range(1 + user % 30)
    ]
    rows += [",3,1700000000,x"] * 5
    file.write_text(f"user,item,time,{HOSTILE}\n" + "\n".join(rows) + "\n")
    catalogue.write_text(
        "item,title,genre,year\n"
        + "\n".join(f"{item},{HOSTILE},g{item % 4},{1990 + item}" for item in range(70))
    )
    config = DataConfig(source=str(file), candidates_file=str(catalogue))
    return render_inspection(inspect_data(config))


def test_page_shows_faults_columns_plots_and_attributes(page: str) -> None:
    for text in (
        "shortlist export refuses this data as it is",
        "column &#39;user&#39; is empty",
        "Activity of users",
        "Popularity of candidates",
        "Interactions over time",
        "1990 to 2059",
        "whole numbers",
        "usual name",
    ):
        assert text in page


def test_strings_of_the_data_are_escaped(page: str) -> None:
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_data_that_cannot_be_read_has_a_page(tmp_path: Path) -> None:
    page = render_inspection(inspect_data(DataConfig(source=str(tmp_path / "none.csv"))))
    assert "no such file" in page


@pytest.mark.slow
def test_page_fits_in_a_browser_and_loads_nothing(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page)
    with browser(tmp_path) as chromium:
        for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark"), (390, "dark")):
            shown = chromium.open(file, width=width, scheme=scheme)
            assert shown.requests() == [file.as_uri()]
            assert shown.complaints() == []
            assert shown.evaluate(STICKING_OUT) == []
            assert shown.evaluate("window.ran") is None
