"""The images that everything uses, what they hold, and what containers may do."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DIGEST = f"sha256:{'0f' * 32}"


def run_script(root: Path, *flags: str, path: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(root / "docker/images.py"), *flags],
        capture_output=True,
        text=True,
        check=False,
        env=None if path is None else {"PATH": str(path)},
    )
    return done.returncode, done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Everything that names an image, in a place of its own."""
    for name in ("docker", "docs", "tests/containers"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("credentials", "*.png")
        )
    (tmp_path / "serving/servers").mkdir(parents=True)
    for name in ("serving/servers/options.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_image_is_as_in_the_lock() -> None:
    assert run_script(ROOT) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("docker/compose.yaml", "prom/prometheus:v2.53.4", "prom/prometheus:latest"),
        ("docker/compose.yaml", f"shortlist/server:{VERSION}", "shortlist/server:latest"),
        ("docker/compose.yaml", "prom/prometheus:v2.53.4", "other/prometheus:v2.53.4"),
        ("docker/compose.yaml", "prom/prometheus:v2.53.4", "prom/prometheus"),
        ("docker/Dockerfile", "python:3.11-slim", "python:3.12-slim"),
        ("docker/kubernetes/base/serving.yaml", "image: python:3.11", f"image: python@{DIGEST} #"),
        (
            "docker/kubernetes/variants/pvc/kustomization.yaml",
            f'newTag: "{VERSION}"',
            "newTag: latest",
        ),
        ("serving/servers/options.py", "serving:2.20.0", "serving:2.19.0"),
    ],
)
def test_another_image_is_named(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    status, errors = run_script(copy)
    assert status == 1
    assert f"images: {file}:" in errors


def test_digests_are_asked_for_once_and_written_everywhere(copy: Path) -> None:
    programs = copy / "bin"
    programs.mkdir()
    (programs / "skopeo").write_text(f"#!/bin/sh\necho {DIGEST}\n")
    (programs / "skopeo").chmod(0o755)
    assert run_script(copy, "--digests", path=programs) == (0, "")
    assert run_script(copy) == (0, "")
    services = yaml.safe_load((copy / "docker/compose.yaml").read_text())["services"]
    for name, service in services.items():
        ours = ":-shortlist/" in service["image"]
        assert service["image"].endswith(f"@{DIGEST}}}") is not ours, name
    base = yaml.safe_load((copy / "docker/kubernetes/base/kustomization.yaml").read_text())
    assert base["images"] == [{"name": "tensorflow/serving", "newTag": "2.20.0", "digest": DIGEST}]
    # A version that cannot be looked up leaves everything as it is.
    (programs / "skopeo").write_text("#!/bin/sh\nexit 1\n")
    before = (copy / "docker/images.lock").read_text()
    status, errors = run_script(copy, "--digests", path=programs)
    assert status == 1
    assert "no digest for grafana/grafana:" in errors
    assert (copy / "docker/images.lock").read_text() == before


def test_every_service_is_locked_down() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert {"serving", "scann", "export", "proxy"} <= services.keys()
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        # Nothing but that: an option `seccomp=...` would replace Docker's default profile.
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name
        assert not {"privileged", "cap_add", "network_mode", "ipc"} & service.keys(), name
        user = re.fullmatch(r"(?:\$\{\w+:-)?(\d+):\d+\}?", service["user"])
        assert user is not None, name
        assert user[1] != "0", name


@pytest.mark.slow
def test_a_bill_of_materials_holds_every_package_of_the_lock(tmp_path: Path) -> None:
    """The tool checks its output against CycloneDX's schema."""
    script = ROOT / "docker/requirements/sbom.sh"
    subprocess.run(["bash", str(script), str(tmp_path)], check=True, capture_output=True)
    for image, locks in (("server", ["server"]), ("export", ["server", "export"])):
        bom = json.loads((tmp_path / f"{image}.cdx.json").read_text())
        assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
        text = "".join((ROOT / f"docker/requirements/{name}.lock").read_text() for name in locks)
        packages = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE)
        assert sorted((part["name"], part["version"]) for part in bom["components"]) == sorted(
            packages
        )
        assert all(part["purl"].startswith("pkg:pypi/") for part in bom["components"])
        assert json.dumps(bom).count('"SHA-256"') == text.count("--hash=sha256:")


def test_locks_can_be_audited() -> None:
    """Without the advisory service: only that every line can be read and has a hash."""
    locks = [ROOT / "requirements.lock", *(ROOT / "docker/requirements").glob("*.lock")]
    assert len(locks) == 4
    for lock in locks:
        command = ["--dry-run", "--disable-pip", "--require-hashes", f"--requirement={lock}"]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.search(r"would have audited \d+ packages", done.stderr), done.stderr
