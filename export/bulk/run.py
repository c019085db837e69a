"""Runs a servable over queries, part by part."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from shortlist.clients import contract
from shortlist.export.bulk.engine import HISTORY
from shortlist.export.bulk.output import BulkOutput

__all__ = ["BATCH_ROWS", "PART_ROWS", "BulkCounts", "run_bulk"]

BATCH_ROWS: Final = 1024  # queries of a run of the signature
PART_ROWS: Final = 65_536  # queries of a file
# Two at once: while one waits for its arrays to become Arrow's, the other computes.
_THREADS: Final = 2
_AHEAD: Final = 2 * _THREADS  # batches in memory

Answer = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(kw_only=True)
class BulkCounts:
    """What a run has done.

    Attributes:
        total: Queries.
        before: Queries of parts that an earlier run had finished.
        answered: Queries that this run answered.
        unknown: Those of them whose user or candidate the servable does not know.
        empty: Those of them without any candidate.
        events: Events in their histories.
        known_events: Those of them whose candidate the servable knows.
        parts: Files that are finished.
    """

    total: int
    before: int = 0
    answered: int = 0
    unknown: int = 0
    empty: int = 0
    events: int = 0
    known_events: int = 0
    parts: int = 0


def run_bulk(
    answer: Answer,
    schema: pa.Schema,
    queries: pa.Table,
    output: BulkOutput,
    *,
    part_rows: int = PART_ROWS,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[BulkCounts], None],
) -> BulkCounts:
    """Answer all queries whose parts are not finished yet.

    Memory holds the queries and some batches. After an error or Ctrl-C finished parts stay.

    Args:
        answer: Answers a batch of queries; called from several threads.
        schema: Columns of the answers.
        queries: A row for each query.
        output: Folder of the parts.
        part_rows: Queries of a part.
        batch_rows: Queries of a batch.
        progress: Called after each batch.

    Raises:
        ShortlistError: The servable failed, or a part cannot be written.
    """
    counts = BulkCounts(total=queries.num_rows)
    todo = _unfinished(queries, output, part_rows, counts)
    batches = (batch for _, part in todo for batch in _batches(part, batch_rows))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="bulk") as pool:
        answers = _ahead(pool, answer, batches)
        try:
            for number, part in todo:
                with output.part(number, schema) as writer:
                    for _ in range(0, part.num_rows, batch_rows):
                        batch = next(answers)
                        writer.write(batch)
                        _count(counts, batch)
                        progress(counts)
                counts.parts += 1
                counts.events += _total_length(part, HISTORY.name)
        finally:
            pool.shutdown(cancel_futures=True)
    output.finish()
    return counts


def _unfinished(
    queries: pa.Table, output: BulkOutput, rows: int, counts: BulkCounts
) -> list[tuple[int, pa.Table]]:
    """Return the parts to do with their numbers, and count the others."""
    todo = []
    for number, start in enumerate(range(0, queries.num_rows, rows)):
        part = queries.slice(start, rows)
        if number in output.finished:
            counts.before += part.num_rows
            counts.parts += 1
        else:
            todo.append((number, part))
    return todo


def _batches(part: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, part.num_rows, rows):
        yield part.slice(start, rows).combine_chunks().to_batches()[0]


def _ahead(
    pool: ThreadPoolExecutor, answer: Answer, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the answers in the order of the batches; some are computed ahead."""
    pending: deque[Future[Any]] = deque()
    for batch in batches:
        pending.append(pool.submit(answer, batch))
        if len(pending) > _AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _total_length(queries: pa.Table, name: str) -> int:
    if name not in queries.column_names:
        return 0
    return pc.sum(pc.list_value_length(queries.column(name))).as_py() or 0


def _count(counts: BulkCounts, answers: pa.RecordBatch) -> None:
    counts.answered += answers.num_rows
    lengths = pc.list_value_length(answers.column(contract.CANDIDATE_IDS))
    counts.empty += pc.sum(pc.equal(lengths, 0)).as_py()
    if contract.KNOWN_HISTORY in answers.schema.names:
        counts.known_events += pc.sum(answers.column(contract.KNOWN_HISTORY)).as_py() or 0
    for name in (contract.KNOWN_USER, contract.KNOWN_CANDIDATE):
        if name in answers.schema.names:
            counts.unknown += pc.sum(pc.invert(answers.column(name))).as_py() or 0
