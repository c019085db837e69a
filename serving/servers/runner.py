"""Run a model server as a child process: start, wait until it serves, stop."""

import ctypes
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Self

from shortlist.clients import GrpcClient, contract
from shortlist.clients.errors import ServingError, Unavailable
from shortlist.clients.types import State
from shortlist.serving.errors import LoadError, ModelServerError
from shortlist.serving.servers import compose
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions
from shortlist.serving.servers.output import ServerOutput

__all__ = ["ModelServer", "all_available", "command_line"]

log = logging.getLogger(__name__)

STOP_TIMEOUT = 15.0  # seconds from SIGTERM, in which calls in flight end, to SIGKILL
REMOVE_TIMEOUT = 120.0  # seconds for Compose to remove what is left
_POLL_TIMEOUT = 2.0  # seconds for one question


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
        self._output = ServerOutput(options.log_file)

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
            # A session of its own: Ctrl-C in the terminal reaches only us, and we stop the server.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output.open(),
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent() if self._temporary else None,
            )
        except OSError as exc:
            self.stop()
            raise ModelServerError(
                f"the {self.kind} server cannot start: {exc.filename}: {exc.strerror}"
            ) from exc
        self._output.follow(self._process.stdout)
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
            LoadError: The server ended, or was not ready in time, because versions did not load.
            ModelServerError: It ended or was late for another reason; the message holds the
                last state seen and the end of the server's output.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._raise_if_ended()
            missing = ready()
            if missing is None:
                return
            if time.monotonic() >= deadline:
                late = f"the {self.kind} server was not ready after {timeout:g} s"
                self._raise_if_not_loaded(f"{late}:")
                raise ModelServerError(f"{late}: {missing}; {self._output.tail()}")
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
            self._output.close()

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
            self._output.finish()
            self._raise_if_not_loaded(f"the {self.kind} server did not load")
            raise ModelServerError(
                f"the {self.kind} server ended with status {status}; {self._output.tail()}"
            )

    def _raise_if_not_loaded(self, message: str) -> None:
        failures = self._output.load_failures()
        if failures:
            raise LoadError(message, failures)

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
        give_up: Raise `LoadError` once versions failed to load, which a server that retries
            may still load.
    """

    def missing() -> str | None:
        waiting, failures = [], {}
        for name, wanted in versions.items():
            try:
                status = client.status(model=name, timeout=_POLL_TIMEOUT)
            except Unavailable:
                return "its ports are closed; it opens them when every model is AVAILABLE"
            except ServingError as exc:
                waiting.append(f"{name}: {exc}")
                continue
            states = {entry.version: entry for entry in status.versions}
            for version in wanted:
                entry = states.get(version)
                if entry is None:
                    waiting.append(f"{name} version {version} is not known to the server yet")
                elif entry.state is State.END and entry.error_message:
                    failures[f"{name} version {version}"] = entry.error_message
                elif entry.state is not State.AVAILABLE:
                    waiting.append(f"{name} version {version} is {entry.state.name}")
        if give_up and failures:
            raise LoadError("the server did not load", failures)
        failed = [f"{version} did not load: {reason}" for version, reason in failures.items()]
        return "; ".join([*failed, *waiting]) or None

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
