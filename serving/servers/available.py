"""Checks before a model server starts: its program, its ports and the flags passed on to it."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from shortlist.serving.errors import ModelServerError
from shortlist.serving.installed import EMBEDDED_NEEDS, missing_package
from shortlist.serving.servers import compose
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, check_ports_differ, claim_port

__all__ = ["check_available", "check_flags"]

_HELP_TIMEOUT: Final = 60.0  # seconds
# Our options, for flags of the server that would have no effect or another one than meant.
_OPTIONS: Final = {"port": "--port", "rest_api_port": "--rest-port", "model_name": "--servable"}
_VALUES: Final = {
    "bool": re.compile(r"true|false|0|1", re.IGNORECASE),
    "int32": re.compile(r"[+-]?\d+"),
    "int64": re.compile(r"[+-]?\d+"),
}


def check_available(
    kind: ServerKind,
    *,
    grpc_port: int = 0,
    rest_port: int = 0,
    flags: Sequence[str] = (),
    image: str = ServerOptions.image,
) -> None:
    """Check that a server can start here, without starting it.

    A server can still fail for what it serves; `running` reports that.

    Args:
        kind: Kind of server.
        grpc_port: Port of the gRPC API; 0 for any free one.
        rest_port: Port of the REST API; 0 for any free one.
        flags: Flags of TensorFlow Serving in addition to those that `running` sets.
        image: Container image, for Docker.

    Raises:
        ModelServerError: Its program is missing, no container engine answers, a port is taken,
            or the server does not take a flag.
        ValueError: Both APIs have the same port.
    """
    if kind is ServerKind.DOCKER:
        compose.compose_command()
        compose.check_engine()
    else:
        kind.program()
    needed = EMBEDDED_NEEDS if kind is ServerKind.EMBEDDED else ()
    if missing := missing_package(needed, extra="embedded"):
        raise ModelServerError(f"the embedded server cannot start: {missing}")
    check_ports_differ(grpc_port, rest_port)
    claim_port(grpc_port, option="--port")
    claim_port(rest_port, option="--rest-port")
    for flag in flags:
        option = _OPTIONS.get(flag.removeprefix("--").partition("=")[0])
        if option is not None:
            raise ModelServerError(
                f"{flag} after -- is not possible: Shortlist sets it; use {option} before --"
            )
    check_flags(kind, flags, image=image)


def check_flags(
    kind: ServerKind, flags: Sequence[str], *, image: str = ServerOptions.image
) -> None:
    """Check flags against the usage that the server prints.

    TensorFlow Serving names the first argument that it does not know and starts without it.
    A program that prints no usage is not judged.

    Raises:
        ModelServerError: The server does not know a flag, or cannot read its value.
    """
    if not flags:
        return
    command = (
        compose.help_command(image) if kind is ServerKind.DOCKER else [*kind.program(), "--help"]
    )
    known = _flags_of(command)
    for flag in flags if known else ():
        name, equals, value = flag.removeprefix("--").partition("=")
        type_ = known.get(name) if flag.startswith("--") else None
        if type_ is None:
            close = get_close_matches(name.lstrip("-"), known, n=1)
            hint = f"did you mean --{close[0]}?" if close else f"`{' '.join(command)}` lists all"
            raise ModelServerError(f"{flag!r} is not a flag of the {kind} server; {hint}")
        if not equals and type_ != "bool":
            raise ModelServerError(f"{flag} needs a value: --{name}=VALUE, in one word")
        if equals and type_ in _VALUES and not _VALUES[type_].fullmatch(value):
            raise ModelServerError(f"{value!r} is not a valid {type_} value of --{name}")


def _flags_of(command: Sequence[str]) -> Mapping[str, str]:
    """Return the type of each flag in a usage of TensorFlow Serving; empty if there is none."""
    try:
        usage = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_HELP_TIMEOUT,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(re.findall(r"^\t--(\w+)=.*?\t(\w+)\t", usage, re.MULTILINE))
