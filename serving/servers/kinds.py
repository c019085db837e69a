"""The kinds of model server; all take TensorFlow Serving's own flags."""

import shutil
import sys
from enum import StrEnum
from typing import Final

from shortlist.serving.errors import ModelServerError
from shortlist.serving.installed import scann_problem

__all__ = ["ServerKind"]

_BINARY: Final = "tensorflow_model_server"


class ServerKind(StrEnum):
    """Way to run a model server."""

    EMBEDDED = "embedded"
    DOCKER = "docker"
    BINARY = "binary"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"server must be one of {', '.join(cls)}, got {value!r}")

    def scann_problem(self) -> str | None:
        """Return why the server does not have ScaNN's ops, or None if it has them."""
        if self is ServerKind.EMBEDDED:
            return scann_problem()
        return "a stock server does not have it; the embedded server does (--server embedded)"

    def program(self) -> list[str]:
        """Return the words of the command line before the flags.

        Raises:
            ModelServerError: The program is not installed, or the server runs in a container.
        """
        if self is ServerKind.EMBEDDED:
            return [sys.executable, "-m", "shortlist.serving.embedded"]
        if self is ServerKind.DOCKER:
            raise ModelServerError(
                "with --server docker give --repository instead of --model_config_file or "
                "--model_base_path: paths inside a container differ"
            )
        path = shutil.which(_BINARY)
        if path is None:
            raise ModelServerError(
                f"there is no {_BINARY} on PATH; install TensorFlow Serving, "
                "or use --server docker or --server embedded"
            )
        return [path]
