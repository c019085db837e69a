"""Archives of arrays and JSON values, replaced by rename: checkpoints and training states."""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["UNREADABLE", "Archive", "write_archive"]

# Errors of an archive that is torn or was not written here.
UNREADABLE = (OSError, KeyError, TypeError, zipfile.BadZipFile, json.JSONDecodeError)

_META = "meta.json"


def write_archive(
    file: Path, meta: Mapping[str, Any], arrays: Iterable[tuple[str, npt.NDArray[Any]]]
) -> None:
    """Replace a file by an archive; its folder is created if missing.

    Args:
        file: File to write.
        meta: JSON values. The number of arrays is added as `arrays`.
        arrays: Names and arrays, consumed one by one.

    Raises:
        OSError: The file cannot be written.
    """
    staging = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with staging.open("wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                count = 0
                for name, array in arrays:
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
                    count += 1
                archive.writestr(_META, json.dumps({**meta, "arrays": count}), zipfile.ZIP_DEFLATED)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staging, file)
    except OSError:
        if staging.parent.is_dir():
            staging.unlink(missing_ok=True)
        raise


class Archive:
    """An archive to read, as a context.

    Attributes:
        meta: JSON values.
    """

    def __init__(self, file: Path) -> None:
        """Open an archive; raises one of `UNREADABLE` if it is none."""
        self._zip = zipfile.ZipFile(file)
        self.meta: Mapping[str, Any] = json.loads(self._zip.read(_META))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an array; raises one of `UNREADABLE` if it is missing or torn."""
        with self._zip.open(f"{name}.npy") as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
