"""Versions of Shortlist and of the packages that it works with, without importing them."""

import argparse
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from shortlist.clients.cli.output import write

__all__ = ["ShowVersions", "installed_versions", "version_lines"]

# Required by the clients, then by training and serving.
_PACKAGES: Final = (
    *("grpcio", "protobuf", "urllib3"),
    *("numpy", "tensorflow", "tensorflow-cpu", "tf-keras", "tensorflow-recommenders", "scann"),
    *("tensorflow-datasets", "duckdb", "pyarrow"),
)


def installed_versions() -> Mapping[str, str]:
    """Return the versions of Shortlist, Python and the installed packages, by name."""
    found = {"shortlist": version("shortlist"), "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def version_lines() -> str:
    """Return one line for each, Shortlist's own first."""
    return "\n".join(f"{name} {number}" for name, number in installed_versions().items())


class ShowVersions(argparse.Action):
    """Print the versions and exit; looks them up only if asked."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print the versions and exit."""
        write(version_lines())
        parser.exit()
