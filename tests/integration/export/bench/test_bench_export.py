"""`shortlist bench export`, small."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.clients.cli.main import main
from shortlist.export.bench.export import ExportCost, ServableCost, cost_picture
from shortlist.export.bench.machine import PeakMemory
from tests.support.command import processes_that_name, started
from tests.support.waiting import wait_until

MIB = 2**20
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_export_is_published_served_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, repository = tmp_path / "cost.svg", tmp_path / "models"
    arguments = ["--size", "2000", "--dimension", "16", "--json", "--recall", "0.9"]
    arguments += ["--index", "brute_force", "--index", "ivf"]
    arguments += ["--picture", str(picture), "--repository", str(repository)]
    assert main(["bench", "export", *arguments]) == 0
    output = capsys.readouterr()
    (cost,) = json.loads(output.out)
    for servable in cost["servables"]:
        version = repository / f"bench_{servable['index']}" / "1"
        files = [file for file in version.rglob("*") if file.is_file()]
        assert servable["disk_bytes"] == sum(file.stat().st_size for file in files)
        assert servable["graph_bytes"] == (version / "saved_model.pb").stat().st_size
        assert servable["index_seconds"] + servable["save_seconds"] > 0
        # The gates run processes alongside it.
        assert 100 * MIB < servable["peak_bytes"] < cost["peak_bytes"]
        assert servable["served_bytes"] > 50 * MIB
        assert 0 < servable["p50_ms"] <= servable["p99_ms"]
        manifest = json.loads((version / contract.MANIFEST_FILE).read_text())
        assert {gate["verdict"] for gate in manifest["gates"]} <= {"passed", "skipped"}
    assert "gates" in output.err
    assert cost["gates_seconds"] < cost["seconds"]
    ET.parse(picture)
    serve = ("serve", "--repository", str(repository), "--port", "0", "--rest-port", "0", "--json")
    with started(*serve, log=tmp_path / "log") as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["grpc"]
        asked = ["--index", "brute_force", "--index", "ivf", "--queries", "64", "--json"]
        assert main(["bench", "index", "--address", address, *asked]) == 0
    exact, approximate = json.loads(capsys.readouterr().out)
    assert exact["recall"] == 1.0
    assert approximate["recall"] >= 0.8
    assert 0 < approximate["p50_ms"] <= approximate["p99_ms"]


@pytest.mark.slow
def test_stopped_at_its_gates_it_leaves_no_process_and_no_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    log = tmp_path / "log"
    arguments = ("bench", "export", "--size", "2000", "--dimension", "16", "--index", "ivf")
    with started(*arguments, log=log) as process:
        wait_until(
            lambda: process.poll() is not None or bool(list(tmp_path.glob("shortlist-gate-*/*"))),
            timeout=240,
        )
        process.terminate()
        assert process.wait(60) == 130, log.read_text()
    assert log.read_text().rstrip().endswith("shortlist: interrupted")
    assert processes_that_name(str(tmp_path)) == []
    assert list(tmp_path.glob("shortlist-*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--repository", "x"], "give --size once"),
    ],
)
def test_option_out_of_range_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "export", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_picture_has_a_panel_for_each_cost_and_a_point_for_each_size() -> None:
    servable = ServableCost(
        index="ivf",
        index_seconds=1.0,
        save_seconds=2.0,
        peak_bytes=700 * MIB,
        disk_bytes=5 * MIB,
        graph_bytes=1000,
        load_seconds=1.0,
        served_bytes=300 * MIB,
        first_ms=2.0,
        p50_ms=0.5,
        p99_ms=1.0,
    )
    costs = [
        ExportCost(
            size=size,
            dimension=64,
            vectors="towers",
            seconds=4.0,
            gates_seconds=1.0,
            peak_bytes=800 * MIB,
            servables=(servable,),
        )
        for size in (10_000, 100_000)
    ]
    root = ET.fromstring(cost_picture(costs))
    assert len(list(root.iter(f"{SVG}polyline"))) == 4
    assert len(list(root.iter(f"{SVG}circle"))) == 8
    tips = [element.text for element in root.iter(f"{SVG}title")]
    assert "ivf: 3 at 10k" in tips


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' /proc")
def test_memory_is_recorded_by_step_and_with_child_processes() -> None:
    with PeakMemory() as memory:
        memory.step("own")
        block = np.ones(200 * MIB, np.uint8)
        del block  # gone before the next sample, but the kernel records the peak
        memory.step("nothing")
        memory.step("child")
        code = f"import time; block = bytearray(b'x' * {300 * MIB}); time.sleep(0.5)"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert memory.peaks["own"] > memory.peaks["nothing"] + 150 * MIB
    assert memory.peaks["child"] > memory.peaks["nothing"] + 250 * MIB
