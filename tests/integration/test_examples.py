"""The examples run as a reader would run them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

SETTINGS = ("TF_USE_LEGACY_KERAS",)  # set by other tests' imports; the example is for Keras 3


def run(name: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), str(folder)],
        cwd=folder,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["keras3_two_tower.py", "pytorch_two_tower.py"])
def test_example_trains_publishes_and_asks(name: str, tmp_path: Path) -> None:
    if name.startswith("pytorch") and find_spec("torch") is None:
        pytest.skip("torch is not installed; run: pip install torch")
    lines = run(name, tmp_path).splitlines()
    answers = [line.split(": ") for line in lines if line.startswith(("Grpc", "Rest"))]
    assert [asked for asked, _ in answers] == [
        f"{client} user-{user}" for client in ("GrpcClient", "RestClient") for user in (3, 4)
    ]
    films = {f"film-{number}" for number in range(150, 200)}  # of genre 3
    assert all(set(found.split(", ")) < films for _, found in answers)
    rates = next(line for line in lines if line.startswith("hit_rate@10"))
    # Each user watches one in eight films: ten at random hold 2.5 % of the events.
    assert float(rates.split()[1].rstrip(",")) > 0.1
