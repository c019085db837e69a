"""The server as a process: command line, log, start, signals, exit status."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, Protocol

from shortlist.clients.cli.output import printable
from shortlist.clients.wire.messages import ModelServerConfig, MonitoringConfig
from shortlist.serving.embedded.api.errors import StatusError, invalid
from shortlist.serving.embedded.api.text_files import read_text_message
from shortlist.serving.embedded.flags import Flags, parse_flags, usage
from shortlist.serving.embedded.lifecycle.core import CoreOptions, ServerCore
from shortlist.serving.embedded.lifecycle.loading import LoadRetries
from shortlist.serving.embedded.settings import Settings, read_settings
from shortlist.serving.installed import tensorflow_version

if TYPE_CHECKING:
    from shortlist.serving.embedded.backend import Backend

__all__ = ["main"]

log = logging.getLogger(__name__)

PROGRAM: Final = "python -m shortlist.serving.embedded"
FAILED: Final = 255  # exit status of the real server, which returns -1 from main
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_LETTERS: Final = {
    logging.DEBUG: "I",
    logging.INFO: "I",
    logging.WARNING: "W",
    logging.ERROR: "E",
    logging.CRITICAL: "F",
}


class _Transport(Protocol):
    def stop(self, grace: float | None = None) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until a signal stops it.

    Returns:
        Exit status if the server did not start; otherwise the signal ends the process.
    """
    parsed = parse_flags(sys.argv[1:] if argv is None else argv)
    _log_to_stderr()
    for error in parsed.errors:
        log.error("%s", error)
    if parsed.errors or parsed.unknown[:1] == ("--help",):
        _say(usage(PROGRAM))
        return FAILED
    if parsed.flags.version:
        _say(f"TensorFlow ModelServer: {version('shortlist')}-embedded\n")
        _say(f"TensorFlow Library: {tensorflow_version() or 'unknown'}\n")
        return 0
    if parsed.unknown:
        _say(f"unknown argument: {parsed.unknown[0]}\n{usage(PROGRAM)}")
    for line in parsed.no_effect:
        log.warning("%s", line)
    return _Server(parsed.flags).run()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _report(error: StatusError) -> None:
    _say(f"Failed to start server. Error: {error.code.name}: {error.message}\n")


class _Server:
    """One server from start to stop."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._transports: list[_Transport] = []
        self._stop = threading.Event()
        self._signalled = False

    def run(self) -> int:
        """Start, serve and drain; return only if the start failed."""
        # Until calls can be in flight, a signal ends the process at once. A SIGINT that the
        # parent ignores (`server &` in a script) stays ignored.
        numbers = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            numbers.append(signal.SIGINT)
        try:
            settings = read_settings(self._flags)
            if self._flags.bind_address not in LOOPBACK:
                log.warning(
                    "listening on %s without authentication: anyone who reaches it can use the "
                    "models and replace the configuration",
                    self._flags.bind_address,
                )
            backend, core = self._start_core(settings)
            self._start_grpc(backend, core)
        except StatusError as exc:
            _report(exc)
            return FAILED
        # Another thread may receive a signal; only the byte that it writes wakes this one.
        waiting, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        for number in numbers:
            signal.signal(number, self._on_signal)
        try:
            self._start_rest(backend, core)
        except StatusError as exc:
            # The real server reports the error and continues to serve gRPC.
            _report(exc)
        self._poll_configuration(core)
        received = os.read(waiting, 1)[0]
        self._stop.set()
        self._drain(core)
        backend.logs.close()
        # Let the signal set the exit status.
        signal.signal(received, signal.SIG_DFL)
        os.kill(os.getpid(), received)
        return FAILED

    def _start_core(self, settings: Settings) -> tuple["Backend", ServerCore]:
        from shortlist.serving.embedded.backend import Backend

        flags = self._flags
        backend = Backend(settings)
        core = ServerCore(
            backend.load,
            CoreOptions(
                poll_interval=flags.file_system_poll_wait_seconds,
                load_threads=flags.num_load_threads,
                retries=LoadRetries(
                    max_retries=flags.max_num_load_retries,
                    interval=flags.load_retry_interval_micros / 1e6,
                ),
                allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
            ),
            follow=backend.logs.update,
        )
        core.reload(settings.models)
        return backend, core

    def _start_grpc(self, backend: "Backend", core: ServerCore) -> None:
        flags = self._flags
        try:
            self._transports.append(backend.start_grpc(core))
        except OSError as exc:
            log.error("%s", exc)
            raise invalid("Failed to BuildAndStart gRPC server") from exc
        if flags.port:
            log.info("Running gRPC ModelServer at %s:%d ...", flags.bind_address, flags.port)
        if flags.grpc_socket_path:
            log.info("Running gRPC ModelServer at UNIX socket %s ...", flags.grpc_socket_path)

    def _start_rest(self, backend: "Backend", core: ServerCore) -> None:
        flags = self._flags
        if not flags.rest_api_port:
            return
        if flags.rest_api_port == flags.port:
            log.error(
                "server_options.http_port cannot be same as grpc_port. Please use a different "
                "port for HTTP/REST API. Skipped exporting HTTP/REST API."
            )
            return
        monitoring = MonitoringConfig()
        if flags.monitoring_config_file:
            read_text_message(Path(flags.monitoring_config_file), monitoring)
        address = f"{flags.bind_address}:{flags.rest_api_port}"
        try:
            self._transports.append(backend.start_rest(core, monitoring))
        except OSError as exc:
            log.error("Failed to start HTTP Server at %s: %s", address, exc)
            return
        log.info("Exporting HTTP/REST API at:%s ...", address)

    def _poll_configuration(self, core: ServerCore) -> None:
        interval = self._flags.model_config_file_poll_wait_seconds
        if interval <= 0 or not self._flags.model_config_file:
            return
        threading.Thread(
            target=self._run_polls, args=(core, interval), name="configuration", daemon=True
        ).start()

    def _run_polls(self, core: ServerCore, interval: float) -> None:
        logged = None
        while True:
            failure = self._poll_once(core)
            if failure is not None and failure != logged:
                log.error("%s is not applied: %s", self._flags.model_config_file, failure)
            logged = failure
            if self._stop.wait(interval):
                return

    def _poll_once(self, core: ServerCore) -> str | None:
        path = self._flags.model_config_file
        seen = _fingerprint(path)
        try:
            config = read_text_message(Path(path), ModelServerConfig())
            # Give up waiting for a base path once the file has changed again.
            core.reload(
                config, keep_waiting=lambda: not self._stop.is_set() and _fingerprint(path) == seen
            )
        except StatusError as exc:
            return exc.message
        except Exception:
            log.exception("reloading the configuration failed")
        return None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            # The second signal does not wait for calls in flight.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signalled = True

    def _drain(self, core: ServerCore) -> None:
        grace = float(max(self._flags.drain_seconds, 0))
        log.info("stopping: waiting up to %g s for calls in flight", grace)
        threads = [
            threading.Thread(target=transport.stop, args=(grace,), daemon=True)
            for transport in self._transports
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        core.stop()


def _fingerprint(path: str) -> tuple[int, int, int] | None:
    """Return a value that changes with the file; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class _Formatter(logging.Formatter):
    """One line for each event, in the format of TensorFlow's log."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        microseconds = int(record.created % 1 * 1e6)
        letter = _LETTERS.get(record.levelno, "I")
        source = f"{record.name.replace('.', '/')}.py:{record.lineno}"
        text = f"{clock}.{microseconds:06d}: {letter} {source}] {printable(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
