"""Output of a model server: where it goes, and what it says about loads that failed."""

import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from shortlist.clients.cli.output import printable

__all__ = ["ServerOutput", "load_failures"]

_STDERR: Final = 2  # the descriptor; sys.stderr need not have one
_LINES_KEPT: Final = 1000
_TAIL_LINES: Final = 15
_LAST_LINES: Final = 2.0  # seconds to wait for the last lines of a server that has ended
# TensorFlow Serving's lines, which the embedded server repeats: one for each attempt, and one at
# the end for all models that failed, each between braces.
_FAILED: Final = re.compile(
    r"\{name: (?P<name>.+?) version: (?P<version>\d+)\} (?:failed|due to error): "
    r"(?P<reason>.*?)(?:\}, (?=\{\{name: |\}\s*$)|$)"
)
_LOADED: Final = re.compile(
    r"Successfully loaded servable version \{name: (?P<name>.+?) version: \d+\}"
    r"|version \d+ of (?P<model>.+?) is AVAILABLE"
)


class ServerOutput:
    """Output of one server: into a file, or without control characters to stderr."""

    def __init__(self, log_file: Path | None) -> None:
        """Prepare without opening.

        Args:
            log_file: File to write; `None` passes the output through to stderr.
        """
        self.log_file = log_file
        self._log: IO[bytes] | None = None
        self._passed: deque[str] = deque(maxlen=_LINES_KEPT)
        self._thread: threading.Thread | None = None

    def open(self) -> IO[bytes] | int:
        """Return what `subprocess.Popen` takes as `stdout`.

        Raises:
            OSError: The file cannot be written.
        """
        if self.log_file is None:
            return subprocess.PIPE
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_file.open("wb")
        return self._log

    def follow(self, stream: IO[bytes] | None) -> None:
        """Pass the lines of a pipe through, in the background; `None` for a file."""
        if stream is not None:
            self._thread = threading.Thread(target=self._pass, args=(stream,), daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait for the last lines of a server that has ended."""
        if self._thread is not None:
            self._thread.join(_LAST_LINES)

    def close(self) -> None:
        """Close the file; can be repeated."""
        self.finish()
        if self._log is not None:
            self._log.close()
            self._log = None

    def load_failures(self) -> dict[str, str]:
        """Return the reasons by `NAME version N`, as `load_failures` does."""
        return load_failures(self._lines())

    def tail(self) -> str:
        """Return the end of the file, or where else to look."""
        if self.log_file is None:
            return "its output is above"
        lines = self._lines()[-_TAIL_LINES:]
        return f"the end of {self.log_file}:\n" + "\n".join(f"  {line}" for line in lines)

    def _lines(self) -> Sequence[str]:
        if self.log_file is None:
            return list(self._passed)
        return self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()

    def _pass(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                # Standard output is for our own results. Without a reader of stderr we continue
                # to read, or the server would block.
                text = printable(line.decode("utf-8", "replace"), newlines=True)
                with suppress(OSError):
                    os.write(_STDERR, text.encode())
                self._passed.append(text.rstrip("\n"))


def load_failures(lines: Iterable[str]) -> dict[str, str]:
    """Return why versions did not load, from the output of a server.

    Returns:
        The server's last reason by `NAME version N`; without models that loaded later.
    """
    failures: dict[str, Mapping[str, str]] = {}
    for line in lines:
        for failed in _FAILED.finditer(line):
            failures[failed["name"]] = failed.groupdict()
        if (loaded := _LOADED.search(line)) is not None:
            failures.pop(loaded["name"] or loaded["model"], None)
    return {
        f"{name} version {failed['version']}": failed["reason"].rstrip(": ")
        for name, failed in sorted(failures.items())
    }
