"""Recall pictures are well-formed and show the points that matter."""

import xml.etree.ElementTree as ET

from shortlist.export.report.figures import recall_picture

SVG = "{http://www.w3.org/2000/svg}"


def words(svg: str, kind: str) -> list[str | None]:
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}{kind}")]


def test_picture_holds_each_index_and_leaves_out_beaten_points() -> None:
    svg = recall_picture(
        {"ivf": [(1.0, 0.9), (2.0, 0.8), (3.0, 0.95)], "a < b": [(40.0, 1.0)]}, title="10 & more"
    )
    assert {"ivf", "a < b", "10 & more"} <= set(words(svg, "text"))
    assert words(svg, "title") == ["ivf: 0.9 at 1", "ivf: 0.95 at 3", "a < b: 1 at 40"]


def test_axes_fit_the_points() -> None:
    svg = recall_picture(
        {"ivf": [(0.4, 0.2), (0.6, 0.72), (0.9, 1.0)], "brute": [(30.0, 1.0)]}, title="x"
    )
    ticks = [word for word in words(svg, "text") if word and word.replace(".", "").isdigit()]
    recalls = ["0.7", "0.8", "0.9", "1"]
    assert ticks == [*recalls, "0.5", "1", "2", "5", "10", "20", "50"]
    assert "ivf: 0.2 " not in svg


def test_poor_index_is_shown_all_the_same() -> None:
    assert "ivf: 0.3 at 2" in recall_picture({"ivf": [(1.0, 0.1), (2.0, 0.3)]}, title="x")


def test_more_lines_than_colours_and_equal_points_are_drawn() -> None:
    curves = {f"ivf {size}": [(0.5, 0.95)] for size in range(12)}
    assert len(words(recall_picture(curves, title="x"), "title")) == 12
