"""Modules of a published version, read back from its checkpoint."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["StoredModule"]

_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


class StoredModule:
    """Variables and tables of a module by attribute, such as `_parts/0/_transform`."""

    def __init__(self, reader: Any, place: str = "") -> None:
        """Use a reader of checkpoints; `place` is that of the module in the servable."""
        self._reader, self._place = reader, place
        self._names = set(reader.get_variable_to_shape_map())

    @classmethod
    def of_version(cls, path: Path) -> Self:
        """Open the checkpoint of a version.

        Raises:
            tf.errors.OpError: It is missing or damaged.
        """
        try:
            return cls(tf.train.load_checkpoint(str(path / "variables" / "variables")))
        except ValueError as exc:  # there is no index of it
            raise tf.errors.NotFoundError(None, None, str(exc)) from exc

    def under(self, place: str) -> "StoredModule":
        """Return the module that an attribute holds."""
        return StoredModule(self._reader, f"{self._place}{place}/")

    def __contains__(self, place: str) -> bool:
        return any(name.startswith(f"{self._place}{place}/") for name in self._names)

    def value(self, place: str) -> npt.NDArray[Any]:
        """Return a variable.

        Raises:
            KeyError: There is none.
            tf.errors.OpError: The checkpoint is damaged.
        """
        name = f"{self._place}{place}/{_VALUE}"
        if name not in self._names:
            raise KeyError(self._place + place)
        return self._read(name)

    def texts(self, place: str) -> list[str]:
        """Return a variable of strings."""
        return [text.decode() for text in self.value(place).tolist()]

    def ids(self, place: str) -> list[str]:
        """Return the ids of an `IdLookup` by their positions."""
        table = f"{self._place}{place}/_table/.ATTRIBUTES/table"
        keys, values = (self._read(f"{table}-{part}") for part in ("keys", "values"))
        return [keys[row].decode() for row in np.argsort(values)]

    def _read(self, name: str) -> npt.NDArray[Any]:
        try:
            value: npt.NDArray[Any] = self._reader.get_tensor(name)
        except IndexError as exc:  # the file is cut off
            raise tf.errors.DataLossError(None, None, str(exc)) from exc
        return value
