"""The same lists by a pipeline of Apache Beam, on any of its runners."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from shortlist.clients.cli.histories import QUERY_KEYS
from shortlist.clients.errors import ShortlistError
from shortlist.clients.local import RetrievalOptions
from shortlist.export.bulk.engine import CANDIDATES, USERS, BulkServable
from shortlist.export.bulk.output import Format
from shortlist.export.bulk.queries import query_rows, table_of_queries
from shortlist.export.bulk.run import BATCH_ROWS

__all__ = ["BIGQUERY", "BulkPipeline", "run_beam"]

BIGQUERY: Final = "bigquery://"  # in front of project.dataset.table
_JSON: Final = (".jsonl", ".ndjson", ".json")
_LEAST_ROWS: Final = 64  # of a batch, unless the source ends


@dataclass(frozen=True, kw_only=True)
class BulkPipeline:
    """What a pipeline reads, asks and writes.

    Attributes:
        servable: Folder of the version, at the same path on every worker.
        tensors: Arguments of `find_interface`.
        options: What all queries share.
        features: Features of every query.
        ids: Ids to ask, if they are not read from `source`.
        source: Parquet files or `bigquery://project.dataset.table` with a column of ids, text
            with an id in each line, or JSON lines of queries; a pattern that Beam's file systems
            know.
        column: Column of the ids in `source`.
        similar: Ask for similar candidates rather than for users.
        output: Folder of the parts, or `bigquery://project.dataset.table`.
        form: Form of the parts.
    """

    servable: str
    tensors: Mapping[str, str]
    options: RetrievalOptions
    features: Mapping[str, Sequence[str]]
    ids: Sequence[str] | None = None
    source: str | None = None
    column: str
    similar: bool = False
    output: str
    form: Format = "parquet"

    @property
    def has_queries(self) -> bool:
        """Whether `source` holds queries with histories and features, not only ids."""
        return self.ids is None and _ending(self.source or "") in _JSON

    @property
    def field(self) -> pa.Field:
        """Column of the ids in queries."""
        return CANDIDATES if self.similar else USERS

    def load(self) -> BulkServable:
        """Load the servable.

        Raises:
            RepositoryError: It cannot be loaded.
        """
        return BulkServable(
            Path(self.servable),
            tensors=self.tensors,
            options=self.options,
            features=self.features,
        )


def run_beam(pipeline: BulkPipeline, schema: pa.Schema, arguments: Sequence[str]) -> None:
    """Run the pipeline and wait for its end.

    Args:
        pipeline: What it reads, asks and writes.
        schema: Columns of the answers.
        arguments: Beam's own options, such as `--runner=DirectRunner`.

    Raises:
        ShortlistError: The pipeline failed.
    """
    # Workers tell of each step otherwise; an option of the user comes later and wins.
    quiet = "--default_sdk_harness_log_level=WARNING"
    options = PipelineOptions([quiet, *arguments], save_main_session=False)
    try:
        with beam.Pipeline(options=options) as root:
            queries = _read(root, pipeline)
            answers = queries | "Answer" >> beam.ParDo(_Answer(pipeline))
            _write(answers, pipeline, schema)
    except ShortlistError:
        raise
    except Exception as exc:  # the runners have no common error
        reason = next((line for line in str(exc).splitlines()[::-1] if line.strip()), repr(exc))
        raise ShortlistError(f"the pipeline failed: {reason}") from exc


class _Answer(beam.DoFn):
    """Answers batches of queries; one process loads the servable once, whatever its threads."""

    def __init__(self, pipeline: BulkPipeline) -> None:
        self._pipeline = pipeline
        self._shared = Shared()

    def setup(self) -> None:
        """Load the servable, or take that of another thread."""
        self._servable = self._shared.acquire(self._pipeline.load, tag=self._pipeline.servable)

    def process(self, queries: pa.Table) -> Iterator[pa.Table]:
        """Yield the answers to some queries."""
        for batch in queries.combine_chunks().to_batches(BATCH_ROWS):
            yield pa.Table.from_batches([self._servable.answer(batch)])


def _read(root: beam.Pipeline, pipeline: BulkPipeline) -> beam.PCollection:
    """Return tables of queries."""
    source, field = pipeline.source, pipeline.field
    if pipeline.ids is not None:
        ids = root | "Ids" >> beam.Create([*pipeline.ids])
    elif source is None:
        raise AssertionError(pipeline)
    elif source.startswith(BIGQUERY):
        table = _bigquery(source)
        rows = root | "Read" >> beam.io.ReadFromBigQuery(table=table)
        ids = rows | "Column" >> beam.Map(_id, pipeline.column)
    elif pipeline.has_queries:
        lines = root | "Read" >> beam.io.ReadFromText(source)
        batches = lines | beam.BatchElements(_LEAST_ROWS, BATCH_ROWS)
        return batches | "Parse" >> beam.Map(_parsed, source)
    elif _ending(source) in (".parquet", ".pq"):
        tables = root | "Read" >> beam.io.ReadFromParquetBatched(source, columns=[pipeline.column])
        return tables | "Ids" >> beam.Map(_ids_of, pipeline.column, field)
    elif _ending(source) == ".txt":
        ids = root | "Read" >> beam.io.ReadFromText(source)
    else:
        raise ShortlistError(
            f"a pipeline cannot read {source}; give all, Parquet, JSON lines, a .txt file with an "
            f"id in each line, or {BIGQUERY}project.dataset.table"
        )
    batches = ids | beam.BatchElements(_LEAST_ROWS, BATCH_ROWS)
    return batches | "Queries" >> beam.Map(_table, field)


def _write(answers: beam.PCollection, pipeline: BulkPipeline, schema: pa.Schema) -> None:
    if pipeline.output.startswith(BIGQUERY):
        rows = answers | "Rows" >> beam.FlatMap(pa.Table.to_pylist)
        _ = rows | "Write" >> beam.io.WriteToBigQuery(
            _bigquery(pipeline.output), schema={"fields": [*map(_bigquery_field, schema)]}
        )
        return
    prefix = f"{pipeline.output.rstrip('/')}/part"
    if pipeline.form == "jsonl":
        lines = answers | "Lines" >> beam.FlatMap(_lines)
        _ = lines | "Write" >> beam.io.WriteToText(prefix, file_name_suffix=".jsonl")
    else:
        _ = answers | "Write" >> beam.io.WriteToParquetBatched(
            prefix, schema, codec="zstd", file_name_suffix=".parquet"
        )


def _ending(source: str) -> str:
    return PurePath(source).suffix


def _bigquery(address: str) -> str:
    """Return a table as Beam names it.

    Raises:
        ShortlistError: The address does not name one.
    """
    project, _, table = address.removeprefix(BIGQUERY).partition(".")
    if table.count(".") != 1:
        raise ShortlistError(f"{BIGQUERY} takes project.dataset.table, got {address!r}")
    return f"{project}:{table}"


def _bigquery_field(field: pa.Field) -> dict[str, str]:
    repeated = pa.types.is_list(field.type)
    kind = field.type.value_type if repeated else field.type
    names = {pa.string(): "STRING", pa.float32(): "FLOAT", pa.bool_(): "BOOLEAN"}
    return {
        "name": field.name,
        "type": names.get(kind, "INTEGER"),
        "mode": "REPEATED" if repeated else "NULLABLE",
    }


def _id(row: Mapping[str, Any], column: str) -> str:
    return str(row[column])


def _ids_of(table: pa.Table, column: str, field: pa.Field) -> pa.Table:
    ids = table.column(column).cast(field.type)
    return pa.Table.from_arrays([ids], schema=pa.schema([field]))


def _table(ids: Sequence[str], field: pa.Field) -> pa.Table:
    return pa.Table.from_arrays([pa.array(ids, field.type)], schema=pa.schema([field]))


def _parsed(lines: Sequence[str], source: str) -> pa.Table:
    """Return the queries in some lines; a worker does not know their numbers."""
    rows = query_rows((f"--users {source}", line) for line in lines)
    return table_of_queries(rows, QUERY_KEYS)


def _lines(answers: pa.Table) -> Iterator[str]:
    for row in answers.to_pylist():
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":"))
