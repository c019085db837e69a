"""The examples run as a reader would run them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from fastapi.testclient import TestClient
from nbclient import NotebookClient

from shortlist.clients.testing import FakeModel, FakeServer
from tests.support.pages import blocks
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from shortlist.export.pipeline import ExportResult

SETTINGS = ("TF_USE_LEGACY_KERAS",)  # set by other tests' imports; the example is for Keras 3


def run(name: str, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *(arguments or (str(folder),))],
        cwd=folder,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
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


@pytest.mark.slow
def test_own_data_becomes_a_version_and_another_a_canary(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorials" / "csv_to_canary.md"
    files = blocks(page, "python")[0].text  # writes two days of a shop
    subprocess.run([sys.executable, "-c", files], cwd=tmp_path, check=True, timeout=60)
    quick = ("--epochs", "1", "--embedding-dim", "8", "--split", "random", "--allow", "quality")
    names = ("monday.csv", "tuesday.csv", "products.csv")
    lines = run("own_data_to_canary.py", tmp_path, *names, ".", *quick).splitlines()
    canary, promoted = (line for line in lines if line.startswith(("canary:", "promoted:")))
    shares = re.fullmatch(r"canary: (\d+) by version 1, (\d+) by version 2", canary)
    assert shares is not None
    assert int(shares[1]) > int(shares[2]) > 0
    # The label `canary` is version 2 as before, and now `stable` is, too.
    assert promoted == "promoted: 100 by version 2"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own code
def test_the_notebook_runs_and_is_stored_without_outputs(
    small_export: "ExportResult", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    for path in small_export.servables.values():  # so that it need not train
        shutil.copytree(path, tmp_path / "models" / path.parent.name / path.name)
    notebook = nbformat.read(ROOT / "examples" / "retrieval.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    NotebookClient(
        notebook,
        timeout=200,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    assert "retrieval_ivf 1 hit_rate@10" in printed[0]
    assert printed[2].startswith("known user:")
    assert printed[3].count("unknown user:") == 2
    assert "similar to" in printed[4]


def test_the_application_answers_and_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "examples" / "fastapi_app.py"
    spec = importlib.util.spec_from_file_location("fastapi_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    films = {
        "Alien": {"genres": "Horror"},
        "Heat": {"genres": "Crime"},
        "Fargo": {"genres": "Crime"},
    }
    model = FakeModel(candidates=films, seen={"2": ["Heat"]}, unknown_users=["new"])
    with FakeServer({"retrieval_ivf": model}) as server:
        monkeypatch.setenv("SHORTLIST_ADDRESS", server.grpc_address)
        with TestClient(module.create_app()) as client:
            known = client.get("/recommendations/2", params={"genre": "Crime"})
            assert known.json() == {"candidates": ["Fargo"], "known_user": True}
            new = client.get("/recommendations/new", params={"watched": ["Fargo"]}).json()
            assert new["known_user"] is False
            assert set(new["candidates"]) == {"Alien", "Heat"}
            assert client.get("/recommendations/2", params={"k": 0}).status_code == 422
            server.fail("UNAVAILABLE", "restarting", times=10)
            away = client.get("/recommendations/2")
            assert (away.status_code, away.json()) == (503, {"detail": "no recommendations now"})
