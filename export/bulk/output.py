"""Folders of parts that appear whole, so that a stopped run can be continued."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import pyarrow as pa
import pyarrow.parquet

from shortlist.clients.errors import ShortlistError
from shortlist.serving.repository.files import file_lock, flush, write_atomically

__all__ = ["FORMATS", "BulkOutput", "Format", "Writer", "open_output"]

Format = Literal["parquet", "jsonl"]

FORMATS: Final = get_args(Format)
_PLAN: Final = "_shortlist.json"
_SUCCESS: Final = "_SUCCESS"
_LOCK: Final = ".lock"
_TEMPORARY: Final = ".part-"
_ROWS: Final = 16_384  # of a row group


class Writer(Protocol):
    """Takes the rows of a part."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what is left."""


class BulkOutput:
    """A folder with `part-00000.parquet` and so on, which Arrow, Spark and pandas read as one.

    Attributes:
        folder: The folder.
        finished: Numbers of the parts that it has.
    """

    def __init__(self, folder: Path, form: Format, finished: set[int]) -> None:
        self.folder = folder
        self.finished = finished
        self._form = form

    @contextmanager
    def part(self, number: int, schema: pa.Schema) -> Iterator[Writer]:
        """Write a part, which appears under its name at the end of the context.

        Raises:
            ShortlistError: The disk is full, or the folder is gone.
        """
        name = _name(number, self._form)
        temporary = self.folder / f"{_TEMPORARY}{number:05d}.tmp"
        with self._writing(name):
            try:
                writer = _WRITERS[self._form](temporary, schema)
                try:
                    yield writer
                finally:
                    writer.close()
                flush(temporary)
                os.replace(temporary, self.folder / name)
                flush(self.folder)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        self.finished.add(number)

    def finish(self) -> None:
        """Write `_SUCCESS`, the sign of a complete folder."""
        with self._writing(_SUCCESS):
            write_atomically(self.folder / _SUCCESS, "")

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ShortlistError(
                f"cannot write {self.folder / name}: {_reason(exc)}; finished parts stay: make "
                "room, then run the same command again"
            ) from exc


@contextmanager
def open_output(
    folder: Path, plan: Mapping[str, Any], *, form: Format, overwrite: bool
) -> Iterator[BulkOutput]:
    """Create a folder, or continue one that was begun with the same plan.

    Args:
        folder: The folder; its parent must exist.
        plan: All that the parts depend on, as JSON types.
        form: Form of the parts.
        overwrite: Remove the parts of another plan, or of a complete run.

    Raises:
        ShortlistError: The folder cannot be written, was begun with another plan, or holds other
            files.
        RepositoryError: Another process writes it.
    """
    plan = json.loads(json.dumps(plan))  # tuples become lists
    with ExitStack() as stack:
        try:
            folder.mkdir(exist_ok=True)
            stack.enter_context(file_lock(folder / _LOCK, timeout=0, by="run"))
            _check(folder, plan, overwrite)
            for path in folder.glob(f"{_TEMPORARY}*.tmp"):
                path.unlink()
            if not (folder / _PLAN).exists():
                write_atomically(folder / _PLAN, json.dumps(plan, indent=2) + "\n")
        except OSError as exc:
            raise ShortlistError(f"cannot write the folder {folder}: {_reason(exc)}") from exc
        parts = (path.stem.partition("-")[2] for path in folder.glob(f"part-*.{form}"))
        yield BulkOutput(folder, form, {int(number) for number in parts if number.isdecimal()})


def _check(folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
    """Check that the folder is empty or of this plan; empty it if it is to be overwritten."""
    file = folder / _PLAN
    names = [path.name for path in folder.iterdir() if path.name != _LOCK]
    others = [name for name in names if not name.startswith((_PLAN, _SUCCESS, "part-", ".part-"))]
    if others or (names and not file.exists()):
        raise ShortlistError(
            f"{folder} holds other files, such as {min(others or names)}; name a new folder"
        )
    if overwrite:
        for name in names:
            (folder / name).unlink()
    elif file.exists():
        begun = json.loads(file.read_text(encoding="utf-8"))
        if begun != plan:
            raise ShortlistError(
                f"{folder} was begun with {_difference(begun, plan)}; give the same options to "
                "continue, --overwrite to start again, or another --output"
            )


def _difference(begun: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Return the first entry that differs, in words."""
    for name in {**begun, **plan}:
        if begun.get(name) != plan.get(name):
            old, new = (json.dumps(side.get(name)) for side in (begun, plan))
            return f"{name} {old}, not {new}"
    raise AssertionError(begun)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _name(number: int, form: Format) -> str:
    return f"part-{number:05d}.{form}"


class _Parquet:
    """Row groups of some thousand rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._rows += batch.num_rows
        if self._rows >= _ROWS:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches, self._schema))
            self._batches.clear()
            self._rows = 0


class _JsonLines:
    """One object per line."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stream = path.open("w", encoding="utf-8")

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            self._stream.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._stream.close()


_WRITERS: Final[Mapping[str, Callable[[Path, pa.Schema], Writer]]] = {
    "parquet": _Parquet,
    "jsonl": _JsonLines,
}
