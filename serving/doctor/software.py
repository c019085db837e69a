"""Checks of what is installed: Python, TensorFlow, ScaNN, Docker."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from shortlist.clients.cli.versions import installed_versions
from shortlist.serving.doctor.check import Check, ok, problem, warning
from shortlist.serving.errors import ModelServerError
from shortlist.serving.installed import missing_package, scann_problem, tensorflow_version
from shortlist.serving.servers import compose

__all__ = ["check_docker", "check_packages", "check_python", "check_scann", "check_tensorflow"]

_PYTHON: Final = ((3, 11), (3, 14))  # first that works, first that TensorFlow has no packages for
_TENSORFLOW: Final = ("2.20", "2.21")
_LOAD_TIMEOUT: Final = 120.0  # seconds
_LOAD: Final = "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'; import tensorflow"
_SERVER: Final = ("numpy", "orjson", "httptools", "prometheus_client")


def check_python() -> Check:
    """Name this Python; the newest ones have no TensorFlow yet."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= _PYTHON[1]:
        return warning(
            "python", found, "TensorFlow has packages for Python 3.11 to 3.13; the clients work"
        )
    return ok("python", found)


def check_packages(versions: Mapping[str, str] | None = None) -> Check:
    """Name the versions of the packages that matter."""
    found = dict(installed_versions() if versions is None else versions)
    found.pop("Python", None)
    return ok("packages", ", ".join(f"{name} {version}" for name, version in found.items()))


def check_tensorflow(*, load: bool = True) -> Check:
    """Check version and companions of TensorFlow, and that it loads.

    Args:
        load: Import it in a process of its own, which takes seconds.
    """
    name, version = "tensorflow", tensorflow_version()
    if version is None:
        missing = missing_package(["tensorflow"], extra="tensorflow")
        return warning(
            name, "not installed", (missing or "").partition("; ")[2] or "pip install tensorflow"
        )
    if ".".join(version.split(".")[:2]) not in _TENSORFLOW:
        extras = "'shortlist[tensorflow]'"
        return problem(
            name, f"{version}, supported: {', '.join(_TENSORFLOW)}", f"run: pip install {extras}"
        )
    if missing := missing_package(_SERVER, extra="embedded"):
        found, _, remedy = missing.partition("; ")
        return warning(name, f"{version}, but {found} for the embedded server", remedy)
    if missing := missing_package(["tf_keras", "tensorflow_recommenders"], extra="export"):
        found, _, remedy = missing.partition("; ")
        return warning(name, f"{version}, but {found} for training", remedy)
    if reason := _load_failure() if load else None:
        return problem(
            name, f"{version} does not load: {reason}", "install it again in a new environment"
        )
    return ok(name, version + (", loads" if load else ""))


def _load_failure() -> str | None:
    """Return the last line of an import that failed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LOAD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"still loading after {_LOAD_TIMEOUT:g} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"status {done.returncode}{last}"


def check_scann() -> Check:
    """Check that ScaNN is installed and fits TensorFlow."""
    reason = scann_problem()
    if reason is None:
        return ok("scann", f"{installed_versions()['scann']}, fits TensorFlow")
    found, _, remedy = reason.partition("; ")
    return warning("scann", f"{found}; the indexes brute_force and ivf work", remedy)


def check_docker() -> Check:
    """Check that a Docker engine with Compose answers."""
    if shutil.which("docker") is None:
        return warning("docker", "not installed", "install it for `shortlist stack`, if you want")
    try:
        compose.check_engine()
        command = compose.compose_command()
    except ModelServerError as exc:
        found, _, remedy = str(exc).partition("; ")
        return warning("docker", found, remedy)
    return ok("docker", f"engine answers, {' '.join(word.split('/')[-1] for word in command)}")
