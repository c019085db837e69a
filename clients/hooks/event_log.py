"""A hook that writes one JSON line for each call, for whoever judges a canary."""

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from shortlist.clients.hooks import CallEvent

__all__ = ["EventLog"]


class EventLog:
    """Appends each `CallEvent` to a file; pass it in `hooks=[EventLog(path)]`.

    Holds no user ids. May be shared by clients and threads; several processes may append
    to one file on a local file system, since each line is written at once.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        self._stream: TextIO = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __call__(self, event: CallEvent) -> None:
        """Writes one line."""
        line = json.dumps(asdict(event)) + "\n"
        with self._lock:
            self._stream.write(line)

    def close(self) -> None:
        """Closes the file; later events are an error, which the client logs."""
        with self._lock:
            self._stream.close()
