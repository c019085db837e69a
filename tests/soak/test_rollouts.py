"""Half a minute of rollouts under load on two replicas."""

import sys
from pathlib import Path

import pytest

from tests.soak.rollouts import run_rollouts


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_request_fails_and_no_other_version_answers(tmp_path: Path) -> None:
    report = run_rollouts(
        tmp_path,
        seconds=35,
        say=lambda line: print(line, file=sys.stderr),  # noqa: T201
    )
    logs = "\n".join(path.read_text()[-2000:] for path in tmp_path.glob("server-*.log"))
    assert report.problems() == [], logs
    assert report.rollouts >= 2
