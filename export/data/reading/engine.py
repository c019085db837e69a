"""The engine that parses delimited text and JSON: DuckDB, without a network or extensions."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

__all__ = ["connect", "literal"]

_MEMORY_SHARE = 0.5  # of the machine's


@contextmanager
def connect() -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to an empty database in memory, which spills into temporary files.

    Raises:
        KeyboardInterrupt: A signal interrupted a query; the engine makes a `RuntimeError` of it.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (limit := path.read_text().strip()).isdigit():
            memory = min(memory, int(limit))
    config = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": f"{int(memory * _MEMORY_SHARE) >> 20}MiB",
        "temp_directory": str(Path(tempfile.gettempdir()) / f"shortlist-{os.getpid()}.duckdb"),
    }
    try:
        with duckdb.connect(config=config) as connection:
            yield connection
    except RuntimeError as exc:
        if str(exc) != "Query interrupted":
            raise
        raise KeyboardInterrupt from exc


def literal(value: object) -> str:
    """Return a value as a literal of SQL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    return "'" + str(value).replace("'", "''") + "'"
