"""A minute of the soak."""

import sys
from pathlib import Path

import pytest

from tests.soak.soak import run_soak


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_request_fails_while_versions_come_and_go(tmp_path: Path) -> None:
    report = run_soak(tmp_path, seconds=45, say=lambda line: print(line, file=sys.stderr))  # noqa: T201
    assert report.problems() == [], (tmp_path / "server.log").read_text()[-3000:]
    assert report.cycles >= 3
