"""Choice of the versions to serve from the names of folders; pure.

A folder is a version if TensorFlow Serving parses its name as a 64-bit integer: `7`, but
also `007`, `+7` and `-7`. The content of the folder does not matter.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["AllVersions", "LatestVersions", "SpecificVersions", "VersionPolicy", "choose_versions"]

_INTEGER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, kw_only=True)
class LatestVersions:
    """The highest `num_versions` versions; the default policy."""

    num_versions: int = 1


@dataclass(frozen=True, kw_only=True)
class AllVersions:
    """Every version."""


@dataclass(frozen=True, kw_only=True)
class SpecificVersions:
    """These versions, if they exist."""

    versions: frozenset[int]


VersionPolicy = LatestVersions | AllVersions | SpecificVersions


def _parse_version(name: str) -> int | None:
    match = _INTEGER.fullmatch(name)
    # int() raises an error for thousands of digits.
    if match is None or len(name) > 64:
        return None
    version = int(match[1])
    return version if version in _INT64 else None


def choose_versions(names: Iterable[str], policy: VersionPolicy) -> dict[int, str]:
    """Return the versions to serve from the entries of a base path.

    Args:
        names: Names of the entries, in any order.
        policy: Policy of the model.

    Returns:
        Folder name by version, highest version first. Of two names for one version (`7` and
        `007`), policy `all` takes the first in byte order, the other policies the last.
    """
    folders: dict[int, str] = {}
    for name in sorted(names, key=os.fsencode, reverse=isinstance(policy, AllVersions)):
        version = _parse_version(name)
        if version is not None:
            folders[version] = name
    newest_first = sorted(folders, reverse=True)
    match policy:
        case AllVersions():
            chosen = newest_first
        case LatestVersions():
            chosen = newest_first[: max(policy.num_versions, 1)]
        case SpecificVersions():
            chosen = [version for version in newest_first if version in policy.versions]
    return {version: folders[version] for version in chosen}
