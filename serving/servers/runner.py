"""Run a model server as a child process: start, wait until it serves, stop."""

import ctypes
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from shortlist.clients import GrpcClient, contract
from shortlist.clients.errors import ServingError
from shortlist.clients.types import State
from shortlist.serving.errors import ModelServerError
from shortlist.serving.servers import compose
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions

__all__ = ["ModelServer", "all_available", "command_line"]

log = logging.getLogger(__name__)

STOP_TIMEOUT = 15.0  # seconds from SIGTERM, in which calls in flight end, to SIGKILL
REMOVE_TIMEOUT = 120.0  # seconds for Compose to remove what is left
LOG_TAIL_LINES = 15
_POLL_TIMEOUT = 2.0  # seconds for one question
STDERR = 2  # the descriptor; sys.stderr need not have one


def command_line(kind: ServerKind, options: ServerOptions) -> list[str]:
    """Return the command line that runs a server in the foreground.

    Raises:
        ModelServerError: The program is not installed, or no container engine answers.
    """
    grpc_port, rest_port = options.grpc_port, options.rest_port
    if kind is ServerKind.DOCKER:
        grpc_port, rest_port = contract.DEFAULT_GRPC_PORT, contract.DEFAULT_REST_PORT
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={options.model_config_file}",
        # A configuration may carry labels of versions that are not loaded yet: without
        # this flag a server that restarts with such a file does not come up.
        "--allow_version_labels_for_unavailable_models=true",
        *options.flags,
    ]
    if kind is ServerKind.DOCKER:
        return compose.foreground_command(options, flags)
    return [*kind.program(), *flags]


class ModelServer:
    """Model server as a child process; a context manager that stops the server on exit.

    Attributes:
        kind: Kind of server.
        options: Options that it was started with.
    """

    def __init__(
        self, kind: ServerKind, options: ServerOptions, *, temporary: bool = False
    ) -> None:
        """Prepare a server without starting it.

        Args:
            kind: Kind of server.
            options: Options to start it with.
            temporary: Whether it ends with the thread that starts it, even if our process
                is killed and can no longer stop it (on Linux).
        """
        self.kind = kind
        self.options = options
        self._temporary = temporary
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC API."""
        return self.options.grpc_address

    @property
    def rest_address(self) -> str:
        """`host:port` of the REST API."""
        return self.options.rest_address

    @property
    def pid(self) -> int | None:
        """Process id of the running server, or of its Docker client."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Start the process without waiting; see `wait_until`.

        Raises:
            ModelServerError: The server runs already, its program is missing or cannot run, or
                its log cannot be written.
        """
        if self._process is not None:
            raise ModelServerError("this model server was started already")
        command = command_line(self.kind, self.options)
        log.info("starting %s", " ".join(command))
        try:
            if self.options.log_file is not None:
                self.options.log_file.parent.mkdir(parents=True, exist_ok=True)
                self._log = self.options.log_file.open("wb")
            # A session of its own: Ctrl-C in the terminal reaches only us, and we stop the server.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                # Standard output is for our own results.
                stdout=self._log if self._log is not None else STDERR,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent() if self._temporary else None,
            )
        except OSError as exc:
            self.stop()
            raise ModelServerError(
                f"the {self.kind} server cannot start: {exc.filename}: {exc.strerror}"
            ) from exc
        return self

    def wait_until(
        self,
        ready: Callable[[], str | None],
        *,
        timeout: float,
        poll_interval: float = 0.1,
    ) -> None:
        """Wait until a condition is met.

        Args:
            ready: Condition; returns `None` if it is met, else what is missing.
            timeout: Timeout in seconds.
            poll_interval: Seconds between two checks.

        Raises:
            ModelServerError: The server ended, or was not ready in time; the message
                holds the last state seen and the end of the server's output.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._raise_if_ended()
            missing = ready()
            if missing is None:
                return
            if time.monotonic() >= deadline:
                raise ModelServerError(
                    f"the {self.kind} server was not ready after {timeout:g} s: {missing}"
                    f"{self._log_tail()}"
                )
            time.sleep(poll_interval)

    def wait(self) -> int:
        """Wait until the server ends by itself, and return its exit status."""
        if self._process is None:
            raise ModelServerError("this model server was not started")
        return self._process.wait()

    def stop(self) -> None:
        """Stop the server; do nothing if it has ended or was never started."""
        process, self._process = self._process, None
        try:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    log.warning("the %s server did not stop on SIGTERM; killing it", self.kind)
                    process.kill()
                    process.wait()
            if process is not None and self.kind is ServerKind.DOCKER:
                self._remove_containers()
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None

    def __enter__(self) -> Self:
        """Start the server if it was not started yet."""
        return self if self._process is not None else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def _raise_if_ended(self) -> None:
        if self._process is None:
            raise ModelServerError("this model server was not started")
        status = self._process.poll()
        if status is not None:
            raise ModelServerError(
                f"the {self.kind} server ended with status {status}{self._log_tail()}"
            )

    def _log_tail(self) -> str:
        if self.options.log_file is None:
            return "; its output is above"
        lines = tail(self.options.log_file, LOG_TAIL_LINES)
        return f"; the end of {self.options.log_file}:\n" + "\n".join(f"  {line}" for line in lines)

    def _remove_containers(self) -> None:
        """Remove container and network even if Compose died first."""
        try:
            subprocess.run(
                compose.remove_command(self.options),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                text=True,
                timeout=REMOVE_TIMEOUT,
            )
        except subprocess.CalledProcessError as exc:
            log.warning("could not remove the container: %s", exc.stderr.strip())
        except subprocess.TimeoutExpired:
            log.warning("the container was not removed in %g s", REMOVE_TIMEOUT)


def all_available(
    client: GrpcClient, versions: Mapping[str, Collection[int]], *, give_up: bool = False
) -> Callable[[], str | None]:
    """Return a condition for `ModelServer.wait_until`: these versions are AVAILABLE.

    An open port or gRPC's health service does not tell: both are fine before, and the latter
    also after, a version fails to load.

    Args:
        client: Client of the server.
        versions: Versions to wait for, by model name.
        give_up: Raise `ModelServerError` for a version that failed to load, which a server
            that retries may still load.
    """

    def missing() -> str | None:
        for name, wanted in versions.items():
            try:
                status = client.status(model=name, timeout=_POLL_TIMEOUT)
            except ServingError as exc:
                return f"{name}: {exc}"
            states = {entry.version: entry for entry in status.versions}
            for version in wanted:
                entry = states.get(version)
                if entry is None:
                    return f"{name}: the server does not know version {version} yet"
                if entry.state is State.AVAILABLE:
                    continue
                if give_up and entry.state is State.END and entry.error_message:
                    raise ModelServerError(
                        f"{name} version {version} did not load: {entry.error_message}"
                    )
                reason = f": {entry.error_message}" if entry.error_message else ""
                return f"{name}: version {version} is {entry.state.name}{reason}"
        return None

    return missing


def _end_with_parent() -> Callable[[], None] | None:
    """Return what a child runs before its program, so that the kernel ends it with its parent."""
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the fork: afterwards a lock may be held indefinitely.
    prctl = ctypes.CDLL(None).prctl
    set_death_signal, signal_number = 1, int(signal.SIGTERM)

    def ask_the_kernel() -> None:
        prctl(set_death_signal, signal_number)

    return ask_the_kernel


def tail(path: Path, count: int) -> Sequence[str]:
    """Return the last `count` lines of a text file."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
