"""The clients alone, installed from a wheel with nothing but their own dependencies."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.unit.clients.toys import ToyServer, ranking

UV = Path(sys.executable).with_name("uv")


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_queries_without_any_extra(server: ToyServer, tmp_path: Path) -> None:
    if not UV.exists():
        pytest.skip("uv is not installed beside this Python")
    wheels = tmp_path / "wheels"
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=ROOT)
    (wheel,) = wheels.glob("*.whl")
    _run(str(UV), "venv", "--quiet", "--python", sys.executable, "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    install = [str(UV), "pip", "install", "--quiet", "--python", str(python), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode != 0:
        pytest.skip(f"no package registry to install grpcio from: {done.stderr[-300:]}")
    shortlist = str(python.with_name("shortlist"))
    for kind in ("rest", "grpc"):
        address = server.address(kind)
        out = _run(
            *(shortlist, "query", "42", "-k", "1", "--transport", kind, "--address", address),
            cwd=tmp_path,
        )
        assert ranking("42")[0][0] in out
    for verb in ("query", "status", "predict", "serve", "export", "demo", "bench"):
        assert "example:" in _run(shortlist, verb, "--help", cwd=tmp_path).lower()
    listed = _run(str(UV), "pip", "list", "--python", str(python), cwd=tmp_path)
    assert "tensorflow" not in listed
    assert "numpy" not in listed
