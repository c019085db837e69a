"""Pictures are well-formed and show the points that matter."""

import xml.etree.ElementTree as ET

from shortlist.export.report.recall_latency import recall_latency_svg

SVG = "http://www.w3.org/2000/svg"


def test_picture_holds_each_index_and_leaves_out_beaten_points() -> None:
    svg = recall_latency_svg(
        {"ivf": [(1.0, 0.9), (2.0, 0.8), (3.0, 0.95)], "a < b": [(40.0, 1.0)]}, title="10 & more"
    )
    root = ET.fromstring(svg)
    names = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ivf", "a < b", "10 & more"} <= set(names)
    tips = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert tips == [
        "ivf: 1 ms, recall 0.900",
        "ivf: 3 ms, recall 0.950",
        "a < b: 40 ms, recall 1.000",
    ]


def test_axes_fit_the_points() -> None:
    svg = recall_latency_svg(
        {"ivf": [(0.4, 0.2), (0.6, 0.72), (0.9, 1.0)], "brute": [(30.0, 1.0)]}, title="x"
    )
    names = [element.text for element in ET.fromstring(svg).iter(f"{{{SVG}}}text")]
    ticks = [name for name in names if name and name.replace(".", "").isdigit()]
    assert ticks == ["0.5", "1", "2", "5", "10", "20", "50", "0.7", "0.8", "0.9", "1.0"]
    assert "0.200" not in svg


def test_poor_index_is_shown_all_the_same() -> None:
    assert "recall 0.300" in recall_latency_svg({"ivf": [(1.0, 0.1), (2.0, 0.3)]}, title="x")
