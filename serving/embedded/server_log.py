"""The server's log on stderr, one line for each event, in the format of TensorFlow's."""

import logging
import sys
import time
from typing import Final

__all__ = ["log_to_stderr"]

_LETTERS: Final = {
    logging.DEBUG: "I",
    logging.INFO: "I",
    logging.WARNING: "W",
    logging.ERROR: "E",
    logging.CRITICAL: "F",
}


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        microseconds = int(record.created % 1 * 1e6)
        letter = _LETTERS.get(record.levelno, "I")
        where = f"{record.name.replace('.', '/')}.py:{record.lineno}"
        text = f"{clock}.{microseconds:06d}: {letter} {where}] {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def log_to_stderr() -> None:
    """Sends the log of the whole process there, from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What the HTTP server has to say about its own life is ours to say.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
