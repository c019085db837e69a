"""Optional packages: which are installed, and what installs the others. Imports none of them."""

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

__all__ = ["EMBEDDED_NEEDS", "missing_package", "scann_problem", "tensorflow_version"]

# Packages that the embedded server imports.
EMBEDDED_NEEDS: Final = (
    *("tensorflow", "numpy", "orjson", "httptools", "prometheus_client", "grpc_reflection"),
)

# Either distribution is the package `tensorflow`.
_TENSORFLOW: Final = ("tensorflow", "tensorflow-cpu")
_SCANN_TENSORFLOW: Final = "2.20"  # scann 1.4.2 loads into no other
_LEGACY: Final = ("tf_keras", "tensorflow_recommenders")


def missing_package(packages: Collection[str], *, extra: str) -> str | None:
    """Return which package is missing and what installs it, or None if all are installed.

    Args:
        packages: Names to import.
        extra: Extra that installs them, except TensorFlow and what depends on it.
    """
    missing = next((package for package in packages if find_spec(package) is None), None)
    if missing is None:
        return None
    if missing == "tensorflow":
        remedy = "pip install 'shortlist[tensorflow]' (or 'shortlist[tensorflow-cpu]', without GPU)"
    elif missing in _LEGACY and (installed := tensorflow_version()):
        # Both require the distribution `tensorflow` by name, which would overwrite tensorflow-cpu.
        minor = ".".join(installed.split(".")[:2])
        remedy = f"pip install --no-deps 'tf-keras=={minor}.*' tensorflow-recommenders==0.7.7"
    else:
        remedy = f"pip install 'shortlist[{extra}]'"
    return f"{missing} is not installed; run: {remedy}"


def tensorflow_version() -> str | None:
    """Return the version of TensorFlow, or None if no distribution says it."""
    return next(iter(_tensorflow().values()), None)


def scann_problem() -> str | None:
    """Return why ScaNN cannot be used and what to do, or None if it can."""
    try:
        scann = version("scann")
    except PackageNotFoundError:
        return "scann is not installed; run: pip install 'shortlist[scann]'"
    for name, installed in _tensorflow().items():
        if not installed.startswith(f"{_SCANN_TENSORFLOW}."):
            return (
                f"scann {scann} does not load into TensorFlow {installed}; run: "
                f"pip install 'shortlist[{name},scann]'"
            )
    return None


def _tensorflow() -> dict[str, str]:
    """Return the version of the installed distribution by its name, which is also our extra's."""
    for name in _TENSORFLOW:
        try:
            return {name: version(name)}
        except PackageNotFoundError:
            continue
    return {}
