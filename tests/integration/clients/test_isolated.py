"""Shortlist as others install it: alone, next to another `clients`, and from its sdist."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from shortlist.serving.servers.docker_files import write_docker_files
from tests.support.paths import ROOT
from tests.unit.clients.toys import ToyServer, ranking

UV = Path(sys.executable).with_name("uv")


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=200, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def build(source: Path, kind: str, output: Path) -> Path:
    """Return the `wheel` or `sdist` of a source tree."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", output, cwd=source)
    (package,) = output.iterdir()
    return package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel") / "dist")


def install(folder: Path, *packages: object) -> Path:
    """Return the Python of a new environment with these packages; skip without a registry."""
    if not UV.exists():
        pytest.skip(f"no uv next to {sys.executable}")
    run(UV, "venv", "--quiet", "--python", sys.executable, folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    command = [UV, "pip", "install", "--quiet", "--python", python, *packages]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=200, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no package registry to install from: {done.stderr[-300:]}")
    return python


@pytest.mark.slow
def test_an_installed_wheel_queries_without_any_extra(
    wheel: Path, server: ToyServer, tmp_path: Path
) -> None:
    python = install(tmp_path / "fresh", wheel)
    shortlist = python.with_name("shortlist")
    for kind in ("rest", "grpc"):
        out = run(
            *(shortlist, "query", "42", "-k", "1", "--transport", kind),
            *("--address", server.address(kind)),
            cwd=tmp_path,
        )
        assert ranking("42")[0][0] in out
    for verb in ("query", "status", "predict", "serve", "export", "demo", "bench"):
        assert "example:" in run(shortlist, verb, "--help", cwd=tmp_path).lower()
    done = subprocess.run(
        [shortlist, "export", "--data", "sample"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (
        1,
        (
            "shortlist: error: `shortlist export` needs numpy, which is not installed; run: "
            "pip install 'shortlist[embedded,export,tensorflow]'\n"
        ),
    )
    written = json.loads(run(shortlist, "docker", "init", "docker", "--json", cwd=tmp_path))
    assert written["files"] == list(map(str, write_docker_files(tmp_path / "ours")))
    for name in written["files"]:
        copy, original = tmp_path / "docker" / name, ROOT / "docker" / name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_mode == original.stat().st_mode, name
    listed = run(UV, "pip", "list", "--python", python, cwd=tmp_path)
    assert "tensorflow" not in listed
    assert "numpy" not in listed


@pytest.mark.slow
def test_the_wheel_and_the_distribution_clients_work_together(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "fresh", wheel, "clients")
    program = (
        "import clients, clients.aio, shortlist.clients, shortlist.clients.aio\n"
        "from shortlist import AsyncGrpcClient, GrpcClient, RestClient\n"
        "assert clients.Client.__module__ == 'clients.base'\n"
        "print(clients.__file__, shortlist.clients.__file__)"
    )
    theirs, ours = run(python, "-c", program, cwd=tmp_path).split()
    packages = Path(theirs).parents[1]
    assert Path(theirs).relative_to(packages) == Path("clients/__init__.py")
    assert Path(ours).relative_to(packages) == Path("shortlist/clients/__init__.py")


def test_an_application_can_have_a_module_called_clients(tmp_path: Path) -> None:
    (tmp_path / "clients.py").write_text("CUSTOMERS = ['Ada']\n")
    (tmp_path / "main.py").write_text(
        "import clients\n"
        "from shortlist import GrpcClient\n"
        "with GrpcClient('127.0.0.1:1') as client:\n"
        "    print(clients.CUSTOMERS, type(client).__module__)\n"
    )
    assert run(sys.executable, "main.py", cwd=tmp_path) == "['Ada'] shortlist.clients.grpc\n"


@pytest.mark.slow
def test_the_sdist_builds_the_wheel_that_the_tree_builds(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("shortlist-*")
    again = build(tree, "wheel", tmp_path / "wheel")
    contents = []
    for path in (wheel, again):
        with zipfile.ZipFile(path) as package:
            contents.append({info.filename: info.CRC for info in package.infolist()})
    assert contents[1] == contents[0]
