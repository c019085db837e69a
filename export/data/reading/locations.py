"""Files behind an address: a path, a pattern, a folder, or a URL for fsspec."""

import bz2
import contextlib
import glob
import gzip
import logging
import lzma
import re
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

import pyarrow as pa

from shortlist.export.data.config import DataError, is_url

__all__ = ["Kind", "Location", "check_file", "find_files", "listed", "one_line"]

log = logging.getLogger(__name__)

Kind = Literal["text", "json", "parquet", "arrow", "database"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv", ".txt", ".dat"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".parquet", ".pq", ".parq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
}
_COMPRESSIONS = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
    ".zip": "zip",
}
_ENDINGS = (
    ".csv, .tsv, .txt, .jsonl, .json, .parquet, .arrow and .feather, also with .gz, .zst, .bz2, "
    ".xz or .zip"
)
_PARTITION = re.compile(r"([^=/]+)=([^/]*)")
_LISTED = 20  # names
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, kw_only=True)
class Location:
    """A file, or a member of a ZIP archive.

    Attributes:
        address: Path or URL of the file.
        kind: Form of its content.
        ending: Ending that told the form, such as `.tsv`.
        compression: Compression, such as `gzip`; None if the file is not compressed.
        member: Member of the archive; None if the file is not an archive.
        partitions: Values of columns in the names of its folders, such as `date=2024-05-01`.
    """

    address: str
    kind: Kind
    ending: str = ""
    compression: str | None = None
    member: str | None = None
    partitions: Mapping[str, str | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.address if self.member is None else f"{self.address}, {self.member}"

    @property
    def name(self) -> str:
        """Last part of the address."""
        return PurePosixPath(self.member or self.address).name

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the decompressed content.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        with _open(self.address) as raw, contextlib.ExitStack() as stack:
            if self.compression is None:
                yield raw
            elif self.compression == "gzip":
                yield cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
            elif self.compression == "bz2":
                yield stack.enter_context(bz2.BZ2File(raw))
            elif self.compression == "xz":
                yield stack.enter_context(lzma.LZMAFile(raw))
            elif self.compression == "zip":
                assert self.member is not None
                archive = stack.enter_context(zipfile.ZipFile(raw))
                yield stack.enter_context(archive.open(self.member))
            else:
                stream = pa.CompressedInputStream(pa.PythonFile(raw), self.compression)
                yield cast(IO[bytes], stack.enter_context(stream))


def find_files(address: str) -> tuple[Location, ...]:
    """Return the files behind an address, in order of their names.

    Files and folders whose names begin with `_` or `.` do not count in folders, nor do empty
    files.

    Raises:
        DataError: There is no file, or one of no known form.
    """
    system, root = _system(address)
    if system is None:
        root = str(Path(address).expanduser())
        if Path(root).is_dir():
            paths = sorted(_walk(Path(root)))
        elif glob.has_magic(root) and not Path(root).exists():
            paths = sorted(glob.glob(root, recursive=True))
        else:
            return _members(root, {})
    else:
        try:
            if glob.has_magic(root):
                paths = sorted(system.glob(root))
            elif system.isdir(root):
                paths = sorted(path for path in system.find(root) if _counts(path, root))
            else:
                return _members(address, {})
            paths = [path for path in paths if system.size(path) != 0]
        except Exception as exc:  # every store has errors of its own
            raise DataError(f"{address} cannot be read ({one_line(exc)}); check it") from exc
    files: list[Location] = []
    for path in paths:
        partitions = {
            urllib.parse.unquote(name): None
            if value == _NO_PARTITION
            else urllib.parse.unquote(value)
            for name, value in _PARTITION.findall(path[len(root) :].rpartition("/")[0])
        }
        full = path if system is None else str(system.unstrip_protocol(path))
        if _form(path) is None:
            log.info("%s is left out: it has none of the endings %s", full, _ENDINGS)
            continue
        files += _members(full, partitions)
    if not files:
        raise DataError(
            f"{address} has no file of data with one of the endings {_ENDINGS}; check the path"
        )
    return tuple(files)


def listed(names: Sequence[str]) -> str:
    """Return names on one line, the first of very many."""
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return " ".join(", ".join(names[:_LISTED]).split()) + more


def one_line(exc: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(exc).split()) or type(exc).__name__


def _walk(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and _counts(str(path), str(folder)) and path.stat().st_size:
            yield str(path)


def _counts(path: str, root: str) -> bool:
    parts = PurePosixPath(path[len(root) :]).parts
    return not any(part.startswith(("_", ".")) and "=" not in part for part in parts)


def _form(name: str) -> tuple[Kind | Literal["zip"], str, str | None] | None:
    """Kind, ending and compression by the name of a file; None for unknown ones."""
    path = PurePosixPath(name.lower())
    compression = _COMPRESSIONS.get(path.suffix)
    if compression is not None:
        path = path.with_suffix("")
    kind = _KINDS.get(path.suffix)
    if kind is not None:
        return kind, path.suffix, compression
    return ("zip", "", compression) if compression == "zip" else None


def _members(address: str, partitions: Mapping[str, str | None]) -> tuple[Location, ...]:
    """Return a file, or the members of an archive."""
    check_file(address)
    form = _form(address.partition("?")[0] if is_url(address) else address)
    if form is None:
        raise DataError(f"{address} has none of the endings {_ENDINGS}; rename or convert it")
    kind, ending, compression = form
    if compression != "zip":
        assert kind != "zip"
        return (
            Location(
                address=address,
                kind=kind,
                ending=ending,
                compression=compression,
                partitions=partitions,
            ),
        )
    with _open(address) as raw:
        try:
            names = sorted(
                info.filename for info in zipfile.ZipFile(raw).infolist() if info.file_size
            )
        except zipfile.BadZipFile as exc:
            raise DataError(
                f"{address} is not a ZIP file ({exc}); was it written to its end?"
            ) from exc
    members = []
    for name in names:
        inner = _form(name)
        if inner is not None and inner[0] != "zip" and inner[2] is None and _counts(f"/{name}", ""):
            members.append(
                Location(
                    address=address,
                    kind=inner[0],
                    ending=inner[1],
                    compression="zip",
                    member=name,
                    partitions=partitions,
                )
            )
    if not members:
        raise DataError(
            f"{address} holds no file with one of the endings {_ENDINGS}, only "
            f"{', '.join(names[:5]) or 'nothing'}; give another archive"
        )
    return tuple(members)


def check_file(address: str) -> None:
    """Raise `DataError` if a local file is missing, a folder, empty or unreadable."""
    if is_url(address):
        return
    with _open(address) as stream:
        if not stream.read(1):
            raise DataError(f"{address} is empty; was its download interrupted?")


def _open(address: str) -> IO[bytes]:
    system, path = _system(address)
    try:
        return open(path, "rb") if system is None else cast(IO[bytes], system.open(path, "rb"))
    except FileNotFoundError:
        raise DataError(f"no such file: {address}; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{address} is a folder; give a file in it") from None
    except OSError as exc:
        raise DataError(
            f"{address} cannot be read ({exc.strerror or one_line(exc)}); check its permissions"
        ) from exc
    except Exception as exc:  # every store has errors of its own
        raise DataError(f"{address} cannot be read ({one_line(exc)}); check it") from exc


def _system(address: str) -> tuple[Any, str]:
    """File system and path of a URL; no file system for a local path."""
    if not is_url(address):
        return None, str(Path(address).expanduser())
    import fsspec

    try:
        system, path = fsspec.url_to_fs(address)
    except ImportError as exc:
        raise DataError(
            f"{address}: {one_line(exc)}; install shortlist[remote], or the package it names"
        ) from exc
    except ValueError as exc:
        raise DataError(f"{address} is not an address of data ({one_line(exc)})") from exc
    return system, path
