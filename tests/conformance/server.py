"""Servers under test: each in a working folder of its own, on free ports."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import grpc

from tests.conformance.compare import Masks
from tests.conformance.wire import Json, call_grpc, call_http, metrics_of, open_channel

__all__ = ["Ports", "RunningServer", "Server", "Workshop"]

_LOG_PREFIX = re.compile(
    r"^(?:\d{4}-\d\d-\d\d [\d:.]+: (?P<new>[IWEF]) |(?P<old>[IWEF])\d{4} [\d:.]+\s+\d+ )"
)
_NOT_RECORDED = (
    "WARNING: All log messages",
    "To enable the following",
    "Loaded custom op",
    "\t--",
)
_STOP_TIMEOUT = 8.0  # seconds, before SIGKILL and after


class Ports:
    """Free ports of a range, handed out in turn; safe to share between threads."""

    def __init__(self, spec: str) -> None:
        self._first, self._last = map(int, spec.split("-"))
        # Replays that run at the same time start at different places.
        half = max(1, (self._last - self._first) // 2)
        self._port = self._first + os.getpid() * 7 % half
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return the next port that is free now."""
        with self._lock:
            while True:
                self._port = self._port + 1 if self._port < self._last else self._first
                with socket.socket() as listener, suppress(OSError):
                    listener.bind(("127.0.0.1", self._port))
                    return self._port


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all servers of a replay share.

    Attributes:
        command: Command line with `{flags}` and, if wanted, `{scann}` (1 or 0).
        models: Folder of the SavedModels.
        work: Folder of the working folders.
        ports: Ports to serve on.
        mask: Applied to the output of a server that exits.
        keep: Whether working folders stay.
    """

    command: str
    models: Path
    work: Path
    ports: Ports
    mask: Masks
    keep: bool = False


class RunningServer:
    """A server that was started elsewhere, at known addresses."""

    def __init__(self, rest: str | None, grpc_address: str | None) -> None:
        self._rest = rest
        self._channel = open_channel(grpc_address) if grpc_address else None

    def fill(self, text: str) -> str:
        """Replace placeholders such as `${ROOT}` by their values."""
        return text

    def unfill(self, text: str) -> str:
        """Put placeholders in place of their values."""
        return text

    def http(self, request: Json, *, compare: str | None = None) -> Json:
        """Send a request over REST; `compare="metrics"` reduces the page to names and types."""
        assert self._rest is not None
        timeout = request.get("timeout_s", 60)
        answer = call_http(self._rest, request, fill=self.fill, timeout=timeout)
        if compare == "metrics":
            answer["metrics"] = metrics_of(answer.pop("body", ""))
        elif "body" in answer:
            answer["body"] = self.unfill(answer["body"])
        return answer

    def grpc(self, request: Json, *, channel: grpc.Channel | None = None) -> Json:
        """Make a call over gRPC, over a channel of its own if given."""
        channel = channel or self._channel
        assert channel is not None
        return call_grpc(channel, request, fill=self.fill, unfill=self.unfill)

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()


class Server(RunningServer):
    """A working folder and at most one server process, started with the flags of a case."""

    def __init__(self, workshop: Workshop) -> None:
        super().__init__(None, None)
        self._workshop = workshop
        workshop.work.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(dir=workshop.work, prefix="w"))
        self.grpc_port = self.rest_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        assert self._process is not None, "the scenario has not started a server"
        return self._process

    @property
    def channel(self) -> grpc.Channel:
        """The channel to the process that was started last."""
        assert self._channel is not None, "the scenario has not started a server"
        return self._channel

    def fill(self, text: str) -> str:
        """Replace placeholders such as `${ROOT}` by their values."""
        text = text.replace("${ROOT}", str(self.root))
        text = text.replace("${GRPC_PORT}", str(self.grpc_port))
        return text.replace("${REST_PORT}", str(self.rest_port))

    def unfill(self, text: str) -> str:
        """Put placeholders in place of their values."""
        text = text.replace(str(self.root), "${ROOT}")
        if self.grpc_port:
            text = re.sub(rf"\b{self.grpc_port}\b", "${GRPC_PORT}", text)
            text = re.sub(rf"\b{self.rest_port}\b", "${REST_PORT}", text)
        return text

    def path(self, relative: str) -> Path:
        """Return a path below the working folder, whose parent exists."""
        path = Path(os.path.normpath(self.root / relative))
        assert path.is_relative_to(self.root), path
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def copy_model(self, source: str, target: str) -> None:
        """Copy a version (or all versions) of a recorded model, complete when it appears."""
        incoming = self.path(f".incoming/{target.replace('/', '_')}")
        shutil.rmtree(incoming, ignore_errors=True)
        ignore = shutil.ignore_patterns(".gitkeep")
        shutil.copytree(self._workshop.models / source, incoming, ignore=ignore)
        incoming.rename(self.path(target))

    def start(
        self,
        flags: Sequence[str],
        *,
        wait: float = 60,
        scann: bool = False,
        environment: dict[str, str] | None = None,
        ports: bool = True,
    ) -> Json:
        """Start a server and return what became of it.

        Waits until both ports accept connections or the process ends.

        Args:
            flags: Flags with placeholders.
            wait: Seconds to wait at most.
            scann: Whether the case needs the ScaNN ops.
            environment: Variables beyond our own.
            ports: Whether to add flags for the two ports if they are missing.
        """
        self.grpc_port, self.rest_port = self._workshop.ports.take(), self._workshop.ports.take()
        filled = [self.fill(flag) for flag in flags]
        for name, port in (("--port", self.grpc_port), ("--rest_api_port", self.rest_port)):
            if ports and not any(flag.startswith(f"{name}=") for flag in filled):
                filled.append(f"{name}={port}")
        self._close_log()
        self._log = (self.root / "server.log").open("wb")
        self._process = process = subprocess.Popen(
            self._command(filled, scann=scann),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.root,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        deadline = time.monotonic() + wait
        grpc_open = rest_open = False
        while time.monotonic() < deadline and process.poll() is None:
            grpc_open = grpc_open or _accepts(self.grpc_port)
            rest_open = rest_open or _accepts(self.rest_port)
            if grpc_open and rest_open:
                break
            time.sleep(0.02)
        if self._channel is not None:
            self._channel.close()
        self._channel = open_channel(f"127.0.0.1:{self.grpc_port}")
        self._rest = f"127.0.0.1:{self.rest_port}"
        if process.poll() is not None:
            code = process.returncode
            return {"result": "exited", "exit_code": code, "output_tail": self.output_tail()}
        return {"result": "running", "grpc_port_open": grpc_open, "rest_port_open": rest_open}

    def _command(self, flags: Sequence[str], *, scann: bool) -> list[str]:
        command: list[str] = []
        for word in shlex.split(self._workshop.command):
            if word == "{flags}":
                command += flags
            else:
                word = word.replace("{scann}", "1" if scann else "0")
                command.append(word.replace("{flags}", shlex.join(flags)))
        return command

    def output_tail(self, count: int = 3) -> list[str]:
        """Return the last lines of output, without log prefixes and informational lines."""
        lines = []
        for line in (self.root / "server.log").read_text("utf-8", "replace").split("\n"):
            prefix = _LOG_PREFIX.match(line)
            level = prefix and (prefix["new"] or prefix["old"])
            if not line.strip() or line.startswith(_NOT_RECORDED) or (level and level in "IW"):
                continue
            lines.append(self.unfill(line[prefix.end() :] if prefix else line))
        return [self._workshop.mask(line)[:1000] for line in lines[-count:]]

    def stop(self) -> None:
        """Stop the process, if any: SIGTERM first, then SIGKILL."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT)
                return

    def close(self) -> None:
        """Stop the process, close the connection and remove the working folder."""
        self.stop()
        super().close()
        self._close_log()
        if not self._workshop.keep:
            shutil.rmtree(self.root, ignore_errors=True)

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False
