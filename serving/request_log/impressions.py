"""The candidates that users were shown, as training data."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.clients.request_log.records import LogRecord
from shortlist.serving.request_log.selection import SelectedLog

__all__ = ["Impressions", "write_impressions"]

_ROWS: Final = 200_000  # per row group, in memory
_SCHEMA: Final = pa.schema(
    [
        ("user_id", pa.string()),
        ("candidate_id", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.int64()),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Impressions:
    """What was written.

    Attributes:
        rows: Shown candidates.
        lists: Lists that they were in.
        bytes: Size of the file.
    """

    rows: int
    lists: int
    bytes: int


def write_impressions(log: SelectedLog, path: Path, *, k: int | None = None) -> Impressions:
    """Write one row per shown candidate to a Parquet file, which appears when it is whole.

    Args:
        log: The log.
        path: The file.
        k: Candidates of each list that users saw; `None` for all.

    Raises:
        LogFileError: There is no retrieval for a user.
        OSError: The file cannot be written.
    """
    rows = lists = 0
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with pq.ParquetWriter(unfinished, _SCHEMA, compression="zstd") as writer:
            columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
            for record in log.predictions(shadows=False):
                for shown in _lists(log, record):
                    lists += 1
                    _add(columns, record, shown, k)
                if len(columns["rank"]) >= _ROWS:
                    rows += _flush(writer, columns)
            rows += _flush(writer, columns)
        log.require(rows, "lists that users were shown")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return Impressions(rows=rows, lists=lists, bytes=path.stat().st_size)


def _lists(log: SelectedLog, record: LogRecord) -> Iterator[Any]:
    try:
        shown = record.retrievals
    except ValueError as exc:
        log.left_out[f"not readable ({exc})"] += 1
        return
    if not shown:
        log.left_out["not a retrieval"] += 1
    for row in shown:
        if row.user_id:
            yield row
        else:
            log.left_out["a list without a user id"] += 1


def _add(columns: dict[str, list[Any]], record: LogRecord, shown: Any, k: int | None) -> None:
    ids, scores = shown.candidate_ids[:k], shown.scores[:k]
    count = len(ids)
    columns["user_id"] += [shown.user_id] * count
    columns["candidate_id"] += ids
    columns["rank"] += range(1, count + 1)
    columns["score"] += map(float, scores)
    columns["timestamp"] += [round(record.time * 1e6)] * count
    columns["model"] += [record.model] * count
    columns["version"] += [record.version] * count
    columns["label"] += [record.label] * count


def _flush(writer: pq.ParquetWriter, columns: dict[str, list[Any]]) -> int:
    arrays = [pa.array(columns[field.name], field.type) for field in _SCHEMA]
    writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
    for values in columns.values():
        values.clear()
    return len(arrays[0])
