"""Options of a model server of any kind."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from shortlist.clients import contract
from shortlist.serving.errors import ModelServerError

__all__ = ["ServerOptions", "check_ports_differ", "claim_port", "free_port"]

# Below those of outgoing connections, which start at 32768 on Linux.
_QUIET_PORTS = range(20_000, 32_000)
_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Addresses, configuration and log of a model server.

    Attributes:
        model_config_file: `ModelServerConfig` in text form; its base paths lie below
            `repository`.
        repository: Root of the model repository; a container mounts it at the same path.
        grpc_port: Port of the gRPC API on `contract.DEFAULT_HOST`.
        rest_port: Port of the REST API on the same host.
        flags: Further flags of TensorFlow Serving.
        log_file: File for the server's output; `None` passes it through to stderr.
        image: Container image, for Docker.
    """

    model_config_file: Path
    repository: Path
    grpc_port: int = contract.DEFAULT_GRPC_PORT
    rest_port: int = contract.DEFAULT_REST_PORT
    flags: tuple[str, ...] = ()
    log_file: Path | None = None
    image: str = "tensorflow/serving:2.20.0"

    def __post_init__(self) -> None:
        check_ports_differ(self.grpc_port, self.rest_port)

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC API."""
        return f"{contract.DEFAULT_HOST}:{self.grpc_port}"

    @property
    def rest_address(self) -> str:
        """`host:port` of the REST API."""
        return f"{contract.DEFAULT_HOST}:{self.rest_port}"


def check_ports_differ(grpc_port: int, rest_port: int) -> None:
    """Check that the APIs have different ports; 0 stands for any free one.

    Raises:
        ValueError: Both have the same port.
    """
    if grpc_port == rest_port != 0:
        raise ValueError(f"gRPC and REST need different ports, got {grpc_port} for both")


def claim_port(port: int, *, option: str) -> int:
    """Return a free port: `port` itself, or any for 0.

    Args:
        port: Port; 0 for any.
        option: Command-line option to name in the error.

    Raises:
        ModelServerError: The port is taken or not allowed.
    """
    if port == 0:
        return _any_free(option)
    with socket.socket() as probe:
        # As servers do, so that a port left in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((contract.DEFAULT_HOST, port))
        except (OSError, OverflowError) as exc:
            raise ModelServerError(
                f"port {port} cannot be used ({exc}); choose another with {option}, "
                "or 0 for any free one"
            ) from exc
        claimed: int = probe.getsockname()[1]
        return claimed


def _any_free(option: str) -> int:
    """Return a free port that the system gives to no connection before the server has it."""
    random = SystemRandom()
    for _ in range(_TRIES):
        with suppress(ModelServerError):
            return claim_port(random.choice(_QUIET_PORTS), option=option)
    raise ModelServerError(f"no free port found; choose one with {option}")


def free_port(preferred: int) -> int:
    """Return a port if it is free, or else 0 for any free one."""
    try:
        return claim_port(preferred, option="")
    except ModelServerError:
        return 0
