"""Compares the embedded server with recorded answers of TensorFlow Serving 2.20.

`docs/conformance.md` lists the cases that differ on purpose, each with its reason. Any other
difference fails, and so does a listed case that agrees.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "conformance.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.conformance,
]


def deliberate() -> set[str]:
    """Return the cases in the document's tables: `suite/name` between backticks, first column."""
    rows = re.findall(r"^\| `((?:rest|grpc|scenarios)/\S+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    return set(rows)


def replay(suite: str, work: Path, only: str = "*") -> dict[str, list[list[str]]]:
    """Return differences by case, except for output lines."""
    report = work / "report.json"
    server = (
        f"{sys.executable} -m shortlist.serving.embedded --enable_scann_ops={{scann}} {{flags}}"
    )
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "tests.conformance.replay",
                "--server",
                server,
                "--suite",
                suite,
            ),
            *("--only", only, "--ignore", "output", "--json", report, "--work", work),
            *("--jobs", "2", "--quiet"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    cases = json.loads(report.read_text())["cases"]
    assert cases, "the corpus holds no cases of this suite"
    return {f"{suite}/{case['name']}": case["differences"] for case in cases}


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("suite", ["rest", "grpc", "scenarios"])
def test_answers_are_those_of_the_real_server(suite: str, tmp_path: Path) -> None:
    differences = replay(suite, tmp_path)
    expected = {name for name in deliberate() if name.startswith(f"{suite}/")}
    disagreeing = {name for name, different in differences.items() if different}
    for name in sorted(disagreeing - expected) if suite == "scenarios" else ():
        # Scenarios give the server seconds to start or to notice a change, which can be too
        # short on a busy machine: try again alone.
        differences |= replay(suite, tmp_path, only=name.removeprefix("scenarios/"))
    disagreeing = {name for name, different in differences.items() if different}
    unexpected = {name: differences[name] for name in sorted(disagreeing - expected)}
    assert not unexpected, json.dumps(unexpected, indent=1)
    stale = sorted((expected & differences.keys()) - disagreeing)
    assert not stale, f"listed in {DOCUMENT.name} as different, and are not: {stale}"
    assert expected <= differences.keys(), f"{DOCUMENT.name} lists cases that do not exist"
