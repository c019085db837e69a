"""A hook that writes one JSON line per call, as `shortlist canary --judge` reads it."""

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from shortlist.clients.hooks import CallEvent

__all__ = ["EventLog"]


class EventLog:
    """Hook that appends each `CallEvent` to a file: `hooks=[EventLog(path)]`.

    Contains no user ids. May be shared by clients and threads. Several processes may append
    to one file on a local file system, as each line is written at once.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        self._stream: TextIO = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __call__(self, event: CallEvent) -> None:
        """Write one line."""
        line = json.dumps(asdict(event)) + "\n"
        with self._lock:
            self._stream.write(line)

    def close(self) -> None:
        """Close the file. Later events raise an error, which the client logs."""
        with self._lock:
            self._stream.close()
