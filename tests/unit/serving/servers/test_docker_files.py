"""`shortlist docker init`, and where `shortlist stack` finds its files."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.serving.errors import ModelServerError
from shortlist.serving.servers import stack
from shortlist.serving.servers.stack import Stack
from tests.support.paths import ROOT

# What builds and checks the images; only a checkout can.
BUILD = ("Dockerfile", "images.", "lint.sh", "requirements/")


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "docker"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name.removeprefix("docker/") for name in listed.stdout.split()]
    return [name for name in names if not name.startswith(BUILD)]


def lines(name: str) -> list[str]:
    return (ROOT / name).read_text().splitlines()


def test_init_writes_what_the_checkout_has(tmp_path: Path) -> None:
    assert main(["docker", "init", str(tmp_path / "ours")]) == 0
    assert tracked()
    written = [path for path in (tmp_path / "ours").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "ours")) for path in written} == set(tracked())
    for name in tracked():
        copy, original = tmp_path / "ours" / name, ROOT / "docker" / name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_mode == original.stat().st_mode, name


def test_sdist_and_images_can_build_the_wheel_with_these_files() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = targets["targets"]["wheel"]["force-include"]
    assert len(included) > 6
    for name in included:
        paths = {name, str(Path(name).parent)}
        assert paths & set(targets["targets"]["sdist"]["only-include"]), name
        assert {f"!{path}" for path in paths} & set(lines(".dockerignore")), name
        copies = {f"COPY {path} /src/{path}" for path in paths}
        assert copies & set(lines("docker/Dockerfile")), name


def test_init_keeps_changed_files_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = ["docker", "init", str(tmp_path)]
    assert main(init) == 0
    changed, missing = tmp_path / "compose.yaml", tmp_path / "proxy/nginx.conf"
    changed.write_text("mine")
    missing.unlink()
    assert main(init) == 1
    assert (changed.read_text(), missing.exists()) == ("mine", False)
    assert f"{tmp_path} has other contents in compose.yaml; --force" in capsys.readouterr().err
    assert main([*init, "--force"]) == 0
    assert main(init) == 0, "the same files are no conflict"
    assert changed.read_bytes() == (ROOT / "docker/compose.yaml").read_bytes()


def test_a_stack_needs_a_folder_with_the_files(tmp_path: Path) -> None:
    with pytest.raises(ModelServerError, match=f"shortlist docker init {tmp_path}"):
        Stack(tmp_path, folder=tmp_path)


def test_keys_are_not_written_into_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["docker", "init", str(tmp_path)])
    monkeypatch.setattr(stack, "INSTALLED", tmp_path)
    (tmp_path / "models/retrieval_ivf/1").mkdir(parents=True)
    (tmp_path / "models/retrieval_ivf/1/saved_model.pb").write_bytes(b"")
    installed = Stack(tmp_path / "models", profiles=["tls"], environment={}, folder=tmp_path)
    with pytest.raises(ModelServerError, match="add --docker docker, or name one in SHORTLIST_TLS"):
        installed.up(timeout=1)
    assert not (tmp_path / "proxy/credentials").exists()
