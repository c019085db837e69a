"""Names in a model repository: which are valid for a model, and which are versions."""

import re
from typing import Final

from shortlist.serving.errors import RepositoryError

__all__ = ["MAX_VERSION", "check_folder_name", "check_model_name", "parse_version"]

MAX_VERSION: Final = 2**63 - 1  # servers read version numbers as int64
# A name is a folder, a part of REST's paths (which give ':' and '/' a meaning) and an argument.
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# Like TensorFlow Serving: `007`, `+7`, `-7` and ` 7` are versions, too.
_VERSION: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)
_LONGEST_NAME: Final = 255  # bytes of a file's name
_LONGEST_VERSION: Final = 64  # int() raises an error for thousands of digits


def check_model_name(name: str) -> None:
    """Check a name under which something is to be published.

    Names of earlier publications are not checked: they continue to be served.

    Raises:
        RepositoryError: The name is not valid.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise RepositoryError(
            f"{name!r} is not a valid model name; use up to 128 ASCII letters, digits, '_', '-' "
            "and '.', first a letter, digit or '_', as in 'retrieval'"
        )


def check_folder_name(name: str) -> None:
    """Check that a model's folder can have this name, also one of an earlier publication.

    Raises:
        RepositoryError: It cannot, or would be hidden or outside of the repository.
    """
    # Surrogates stand for bytes of a name that is not UTF-8.
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name or name.startswith(".") or "/" in name or "\0" in name or size > _LONGEST_NAME:
        check_model_name(name)


def parse_version(name: str) -> int | None:
    """Return the version that the server's poller reads from a folder's name, or `None`."""
    match = _VERSION.fullmatch(name)
    if match is None or len(name) > _LONGEST_VERSION:
        return None
    version = int(match[1])
    return version if -MAX_VERSION - 1 <= version <= MAX_VERSION else None
