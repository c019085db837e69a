"""Replays a version's warm-up records, so that its first request is as fast as the others.

Warm-up is the last gate before a version serves: if a record cannot be read or its request
fails, the load fails.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from shortlist.clients.contract import WARMUP_FILE
from shortlist.clients.wire.messages import PredictionLog
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid

__all__ = ["MAX_RECORDS", "ReadRecords", "replay"]

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 1000

# Reads the records of a TFRecord file; raises StatusError if it is damaged.
ReadRecords = Callable[[Path], Iterable[bytes]]


def replay(
    path: str,
    execute: Callable[[PredictionLog], None],
    *,
    read_records: ReadRecords,
    iterations: int = 1,
) -> int:
    """Replay the warm-up records of a version, if it has any.

    Args:
        path: Folder of the version.
        execute: Runs the request of one record.
        read_records: Reads the file.
        iterations: Number of runs of each record.

    Returns:
        Number of records.

    Raises:
        StatusError: The file is damaged or too long, or a request failed.
    """
    file = Path(path, WARMUP_FILE)
    if not file.exists():
        return 0
    started = time.monotonic()
    count = 0
    for record in _records(file, read_records):
        entry = PredictionLog()
        try:
            entry.ParseFromString(record)
        except DecodeError as exc:
            shown = record.decode("utf-8", "replace")
            raise invalid(f"Failed to parse warmup record: {shown} from {file}") from exc
        for _ in range(iterations):
            execute(entry)
        count += 1
        if count > MAX_RECORDS:
            raise invalid(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}",
            )
    log.info("replayed %d warm-up records of %s in %.2f s", count, path, time.monotonic() - started)
    return count


def _records(file: Path, read_records: ReadRecords) -> Iterable[bytes]:
    try:
        yield from read_records(file)
    except StatusError as exc:
        if exc.code is not Code.DATA_LOSS:
            raise
        raise StatusError(
            Code.DATA_LOSS,
            f"{exc.message}. Please verify your warmup data is in TFRecord format.",
        ) from exc
