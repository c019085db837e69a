"""`shortlist serve` on a repository of which a part does not load."""

import shutil
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.recorded import MODELS

pytestmark = pytest.mark.slow

BROKEN = {
    "beta": ("broken/truncated_pb/3", r"OUT_OF_RANGE: Read less bytes than requested"),
    "delta": ("broken/warmup_failing/3", r"INVALID_ARGUMENT: Signature input alias"),
}
GOOD = ("alpha", "gamma", "zeta")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name in GOOD:
        shutil.copytree(MODELS / "half_plus_two" / "1", root / name / "1")
    for name, (source, _) in BROKEN.items():
        shutil.copytree(MODELS / source, root / name / "1")
    return root


def test_serve_names_the_models_that_did_not_load_and_how_to_serve_the_others(
    repository: Path,
) -> None:
    done = run("serve", "--repository", str(repository), "--port=0", "--rest-port=0")
    assert done.returncode == 1
    assert done.stdout == ""
    error = done.stderr.splitlines()[-1]
    assert error.startswith("shortlist: error: the embedded server did not load beta version 1 (")
    for name, (_, reason) in BROKEN.items():
        assert f"{name} version 1 ({reason}" in error
    remedy = f"shortlist serve --repository {repository}" + "".join(
        f" --servable {name}" for name in GOOD
    )
    assert error.endswith(f"; publish beta and delta again, or serve the others: {remedy}")
