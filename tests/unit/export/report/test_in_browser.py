"""The report as a browser shows it: at both widths, in both schemes, and on paper."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shortlist.export.report.content import Report
from shortlist.export.report.render import render
from tests.support.chromium import Browser, Page, browser

pytestmark = pytest.mark.slow

DESKTOP, PHONE = 1280, 390
A4 = 688  # CSS pixels between the margins
VIEWS = [(DESKTOP, "light"), (PHONE, "light"), (DESKTOP, "dark"), (PHONE, "dark")]

# Elements beyond the right edge of the window, except inside scrollable ones.
STICKING_OUT = """
[...document.querySelectorAll("body *")]
  .filter(e => !e.closest(".scroll, nav, .spoken"))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + "." + e.className)
"""
# Rectangles in the page's coordinates.
BOXES = """
Object.fromEntries([...document.querySelectorAll("%s")].map((e, i) => {
  const r = e.getBoundingClientRect();
  return [e.id || i, [r.left + scrollX, r.top + scrollY, r.right + scrollX, r.bottom + scrollY]];
}))
"""
# Labels in charts outside of the window or on top of other labels.
BAD_LABELS = """
[...document.querySelectorAll("svg.chart")].flatMap(chart => {
  const width = document.documentElement.clientWidth;
  const labels = [...chart.querySelectorAll("text")]
    .map(t => [t.textContent, t.getBoundingClientRect()]);
  const outside = labels.filter(([, r]) => r.left < 0 || r.right > width).map(([t]) => t);
  const cross = (a, b) => a.left < b.right && b.left < a.right
    && a.top + 2 < b.bottom && b.top + 2 < a.bottom;
  const upon = labels.flatMap(([t, a], i) => labels.slice(i + 1)
    .filter(([, b]) => cross(a, b)).map(([other]) => t + " / " + other));
  return [...outside, ...upon];
})
"""
# Size of the smallest words in charts, in CSS pixels after shrinking.
SMALLEST_LABEL = """
Math.min(...[...document.querySelectorAll("svg.chart text")].map(t =>
  parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a))
"""
# Text with a WCAG contrast below 4.5 to its background.
LOW_CONTRAST = """
(() => {
  const numbers = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => numbers(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const solid = c => numbers(c).length < 4 || numbers(c)[3] > 0;
  const behind = e => {
    if (e.matches(".chart .on")) {
      const place = [...e.classList].find(c => c[0] == "p");
      return getComputedStyle(e.ownerSVGElement.querySelector(".part." + place)).fill;
    }
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (solid(c)) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())) continue;
    if (e.closest("title, .spoken")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(e.closest("svg") ? style.fill : style.color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(e.textContent.trim().slice(0, 30) + " " + ratio.toFixed(2));
  }
  return bad;
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def file(full_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(full_report), encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True)
class View:
    """A browser's view of the report in one window."""

    width: int
    scheme: str
    scroll_width: int
    sticking_out: list[str]
    bad_labels: list[str]
    low_contrast: list[str]
    smallest_label: float
    sections: dict[str, list[float]]
    charts: dict[str, list[float]]
    shot: npt.NDArray[np.uint8]


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def view(request: pytest.FixtureRequest, chromium: Browser, file: Path) -> View:
    width, scheme = request.param
    return look(chromium, file, width, scheme)


def look(chromium: Browser, file: Path, width: int, scheme: str) -> View:
    page = chromium.open(file, width=width, scheme=scheme)
    return View(
        width=width,
        scheme=scheme,
        scroll_width=page.evaluate("document.documentElement.scrollWidth"),
        sticking_out=page.evaluate(STICKING_OUT),
        bad_labels=page.evaluate(BAD_LABELS),
        low_contrast=page.evaluate(LOW_CONTRAST),
        smallest_label=page.evaluate(SMALLEST_LABEL),
        sections=page.evaluate(BOXES % "section"),
        charts=page.evaluate(BOXES % "svg.chart"),
        shot=np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")),
    )


def crop(shot: npt.NDArray[np.uint8], box: list[float]) -> npt.NDArray[np.uint8]:
    left, top, right, bottom = (round(edge) for edge in box)
    return shot[max(top, 0) : bottom, max(left, 0) : right]


def colours(area: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number of pixels of each colour, at 5 bits per channel."""
    coarse = (area >> 3).astype(np.int64)
    return np.bincount(((coarse[..., 0] << 10) | (coarse[..., 1] << 5) | coarse[..., 2]).ravel())


def ink(area: npt.NDArray[np.uint8]) -> float:
    """Share of pixels that are not of the area's most frequent colour."""
    counts = colours(area)
    return float(1 - counts.max() / counts.sum())


def test_every_section_is_drawn(view: View) -> None:
    assert view.shot.shape[1] == view.width
    assert bool(view.shot[:40].mean() < 128) == (view.scheme == "dark")
    assert set(view.sections) == {
        *("headline", "quality", "training", "breadth", "activity"),
        *("users", "indexes", "gates", "configuration", "words"),
    }
    for name, box in view.sections.items():
        area = crop(view.shot, box)
        assert area.shape[0] > 80, name
        assert 0.02 < ink(area) < 0.6, (name, ink(area))
        assert np.count_nonzero(colours(area)) > 10, name  # smoothed letters
        # No half of a section is empty.
        for half in np.array_split(area, 2, axis=0):
            assert ink(half) > 0.01, name


def test_nothing_sticks_out_of_the_window(view: View) -> None:
    assert view.scroll_width == view.width
    assert view.sticking_out == []


def test_charts_show_their_colours_and_readable_labels(view: View) -> None:
    assert view.bad_labels == []
    assert view.smallest_label >= 9.5
    assert len(view.charts) == 7
    for box in view.charts.values():
        area = crop(view.shot, box).reshape(-1, 3).astype(int)
        colourful = area.max(axis=1) - area.min(axis=1) > 60
        assert colourful.sum() > 150  # at least a line


def test_all_text_stands_out_from_its_background(view: View) -> None:
    assert view.low_contrast == []


def test_nothing_is_asked_for_nothing_runs_and_nothing_is_complained_about(
    chromium: Browser, file: Path
) -> None:
    page = chromium.open(file, width=DESKTOP)
    assert page.evaluate("typeof window.ran") == "undefined"
    assert page.requests() == [file.as_uri()]
    assert page.complaints() == []


def test_rendered_text_holds_all_sections_and_hostile_titles(
    chromium: Browser, file: Path, full_report: Report
) -> None:
    page = chromium.open(file, width=DESKTOP)
    text: str = page.evaluate("document.body.innerText")
    for expected in (
        "retrieval, version 7",
        "Quality of the recommendations",
        "Training",
        "Coverage and popularity",
        "Quality by activity",
        "Sample users",
        "Published servables",
        "Gates before publication",
        "Configuration",
        "<script>window.ran = true</script>",
    ):
        assert expected in text
    for user in full_report.samples:
        assert user.kind in text
        assert all(shown.title in text for shown in user.recommendations)


def test_links_lead_to_their_sections(chromium: Browser, file: Path) -> None:
    page = chromium.open(file, width=DESKTOP)
    lost: list[Any] = page.evaluate(
        """[...document.querySelectorAll("nav a")]
             .filter(a => !document.querySelector(a.getAttribute("href"))).map(a => a.href)"""
    )
    assert lost == []


def test_it_prints_on_a_few_pages(chromium: Browser, file: Path) -> None:
    page = chromium.open(file, width=A4, scheme="dark")
    page.as_printed()
    assert page.evaluate("document.documentElement.scrollWidth") == A4
    paper = page.pdf()
    assert paper.startswith(b"%PDF-")
    sheets = paper.count(b"/Type /Page\n") or paper.count(b"/Type/Page/")
    assert 3 <= sheets <= 12


def test_the_checks_notice_a_page_that_is_broken(
    chromium: Browser, file: Path, tmp_path: Path
) -> None:
    """The checks above fail on a page with these faults."""
    broken = tmp_path / "broken.html"
    faults = (
        '<div style="width: 900px; color: #888; background: #999">wide and faint</div>'
        '<img src="https://example.com/x.png" alt="">'
        '<section id="empty" style="height: 200px"></section>'
    )
    page = file.read_text(encoding="utf-8").replace("</main>", f"{faults}</main>")
    broken.write_text(page, encoding="utf-8")
    seen = look(chromium, broken, PHONE, "light")
    assert seen.scroll_width > PHONE
    assert seen.sticking_out != []
    assert [text for text in seen.low_contrast if "wide and faint" in text]
    assert Page(chromium).complaints() != []  # the policy refuses the image
    left, top, right, bottom = seen.sections["empty"]
    assert ink(crop(seen.shot, [left + 30, top + 30, right - 30, bottom - 30])) == 0.0
