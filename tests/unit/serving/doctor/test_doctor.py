"""`shortlist doctor`, on machines made of files."""

import json
import os
import socket
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.clients.cli.main import main
from shortlist.serving import installed
from shortlist.serving.doctor import machine, ports, software
from shortlist.serving.doctor.check import Check, Outcome
from shortlist.serving.doctor.repository import check_repository
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from tests.support.packages import versions
from tests.support.paths import ROOT


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    kib = {"MemTotal": 16 * 2**20, "MemFree": 2**20, "MemAvailable": 8 * 2**20}
    (folder / "meminfo").write_text("".join(f"{name}: {n} kB\n" for name, n in kib.items()))
    return folder


@pytest.mark.parametrize(
    ("flags", "outcome", "text"),
    [
        ("sse4_2", Outcome.PROBLEM, "no AVX"),
        ("avx fma", Outcome.WARNING, "AVX, FMA"),
        ("avx avx2 fma avx512f avx512_bf16", Outcome.OK, "AVX2, FMA, AVX-512, AVX-512 BF16"),
        ("avx avx2 fma amx_tile amx_bf16", Outcome.OK, "AMX, AMX BF16"),
    ],
)
def test_processor_is_named_with_its_instructions(
    proc: Path, flags: str, outcome: Outcome, text: str
) -> None:
    block = f"processor\t: 0\nmodel name\t: Ours 9\nflags\t\t: fpu {flags}\n\n"
    (proc / "cpuinfo").write_text(block * 2)
    check = machine.check_processor(proc)
    assert (check.outcome, check.remedy is None) == (outcome, outcome is Outcome.OK)
    assert check.found.startswith("Ours 9, ")
    assert check.found.endswith(text)


def test_memory_is_that_of_the_control_group(proc: Path, tmp_path: Path) -> None:
    check = machine.check_memory(proc, tmp_path)
    assert (check.outcome, check.found) == (Outcome.OK, "8.0 of 16.0 GiB available")
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    check = machine.check_memory(proc, tmp_path)
    assert check.outcome is Outcome.WARNING
    assert check.found.endswith("control group 1.0 of 2.0 GiB")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.check_memory(proc, tmp_path).outcome is Outcome.OK


def test_a_clock_before_the_installation_is_a_problem() -> None:
    assert machine.check_clock().outcome is Outcome.OK
    assert machine.check_clock(datetime(2001, 1, 1, tzinfo=UTC)).outcome is Outcome.PROBLEM


def test_a_port_is_held_by_a_process_with_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server((contract.DEFAULT_HOST, 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(ports, "_PORTS", {port: ("REST", "--rest-port")})
        [check] = ports.check_ports()
        assert check.outcome is Outcome.WARNING
        assert f"(process {os.getpid()})" in check.found
        [hidden] = ports.check_ports(tmp_path)
        assert "that this user cannot see" in hidden.found
    [check] = ports.check_ports()
    assert (check.outcome, check.found) == (Outcome.OK, "REST, free")


@pytest.mark.parametrize(
    ("packages", "outcome", "found", "remedy"),
    [
        ({}, Outcome.WARNING, "not installed", "'shortlist[tensorflow]'"),
        ({"tensorflow": "2.19.1"}, Outcome.PROBLEM, "2.19.1, supported: 2.20, 2.21", "pip install"),
        ({"tensorflow_cpu": "2.20.0"}, Outcome.OK, "2.20.0", ""),
    ],
)
def test_tensorflow_has_to_fit(
    monkeypatch: pytest.MonkeyPatch,
    packages: dict[str, str],
    outcome: Outcome,
    found: str,
    remedy: str,
) -> None:
    monkeypatch.setattr(installed, "version", versions(**packages))
    if not packages:
        monkeypatch.setattr(installed, "find_spec", lambda name: None)
    check = software.check_tensorflow(load=False)
    assert (check.outcome, check.found) == (outcome, found)
    assert remedy in (check.remedy or "")


def test_supported_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [cpu] = project["optional-dependencies"]["tensorflow-cpu"]
    first, last = software._TENSORFLOW
    assert cpu == f"tensorflow-cpu>={first},<2.{int(last.partition('.')[2]) + 1}"


def test_an_import_that_fails_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_LOAD", "raise ImportError('undefined symbol: x')")
    check = software.check_tensorflow()
    assert check.outcome is Outcome.PROBLEM
    assert check.found.endswith("does not load: status 1: ImportError: undefined symbol: x")


def findings(root: Path, *, named: bool = True) -> list[Check]:
    return list(check_repository(root, named=named))


def test_a_repository_may_be_missing_unless_it_is_named(tmp_path: Path) -> None:
    assert [check.outcome for check in findings(tmp_path / "no")] == [Outcome.PROBLEM]
    assert [check.outcome for check in findings(tmp_path / "no", named=False)] == [Outcome.OK]


def test_a_repository_is_linted(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / f"ivf/{version}/assets.extra").mkdir(parents=True)
        (tmp_path / f"ivf/{version}/saved_model.pb").write_bytes(b"")
    (tmp_path / f"ivf/2/{contract.MANIFEST_FILE}").write_text("{")
    entry = ModelEntry(versions=(1, 3), labels={"stable": 1})
    write_config(tmp_path / CONFIG_FILE, tmp_path, {"ivf": entry})
    first, *others = findings(tmp_path)
    assert (first.outcome, first.found) == (Outcome.OK, f"{tmp_path}: 2 versions of 1 model")
    assert [check.outcome for check in others] == [Outcome.PROBLEM, Outcome.PROBLEM]
    assert others[0].found.startswith("ivf/2: ")
    assert "version 3 is not in" in others[1].found


def test_doctor_prints_what_a_bug_report_can_carry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    named = str(tmp_path / "models")
    assert main(["doctor", "--quick", "--repository", named]) == 1
    out = capsys.readouterr().out
    assert f"python       ok       {sys.version_info[0]}.{sys.version_info[1]}." in out
    assert "repository   problem  ~/models is not a folder" in out
    assert str(tmp_path) not in out
    assert main(["doctor", "--quick", "--repository", named, "--json"]) == 1
    names = [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert {"processor", "memory", "disk", "docker", "port 8500", "clock"} < set(names)
