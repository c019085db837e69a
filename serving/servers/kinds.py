"""Command lines of the three ways to run a model server.

All three take TensorFlow Serving's own flags; only what stands before them differs.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial

from shortlist.clients import contract
from shortlist.serving.errors import ModelServerError
from shortlist.serving.servers import compose
from shortlist.serving.servers.options import ServerOptions

__all__ = ["COMMANDS", "SERVER_KINDS", "program"]

BINARY = "tensorflow_model_server"


def _common_flags(options: ServerOptions, *, grpc_port: int, rest_port: int) -> list[str]:
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={options.model_config_file}",
        # A configuration may carry labels of versions that are not loaded yet: without
        # this flag a server that restarts with such a file does not come up.
        "--allow_version_labels_for_unavailable_models=true",
        *options.flags,
    ]


def program(kind: str) -> list[str]:
    """What stands before the flags of a server that runs outside containers.

    Raises:
        ModelServerError: The program is not installed.
    """
    if kind == "embedded":
        return [sys.executable, "-m", "shortlist.serving.embedded"]
    path = shutil.which(BINARY)
    if path is None:
        raise ModelServerError(
            f"there is no {BINARY} on PATH; install TensorFlow Serving, "
            "or use --server docker or --server embedded"
        )
    return [path]


def _local(kind: str, options: ServerOptions) -> list[str]:
    flags = _common_flags(options, grpc_port=options.grpc_port, rest_port=options.rest_port)
    return [*program(kind), *flags]


def _docker(options: ServerOptions) -> list[str]:
    flags = _common_flags(
        options, grpc_port=contract.DEFAULT_GRPC_PORT, rest_port=contract.DEFAULT_REST_PORT
    )
    return compose.foreground_command(options, flags)


COMMANDS: Mapping[str, Callable[[ServerOptions], list[str]]] = {
    "embedded": partial(_local, "embedded"),
    "docker": _docker,
    "binary": partial(_local, "binary"),
}
SERVER_KINDS = tuple(COMMANDS)
