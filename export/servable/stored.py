"""A servable of a published version, read back from its checkpoint."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import FILTER_SEPARATOR, Attribute
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["StoredServable"]


class StoredServable(StoredModule):
    """A servable in its checkpoint."""

    def corpus_rows(self) -> npt.NDArray[np.float32]:
        """Return the index rows of the whole corpus, whatever part of it the servable returns."""
        return self.value("_corpus/_table") if "_corpus/_table" in self else self.index_rows()

    def index_rows(self) -> npt.NDArray[np.float32]:
        """Return the rows of the index, in the order of the candidates."""
        for place in ("_index/_candidates", "_index/_embeddings", "_index/_state/dataset"):
            if place in self:
                return self.value(place)
        leaves = self.value("_index/_rows/_rows")
        rows: npt.NDArray[np.float32] = leaves.reshape(-1, leaves.shape[2])
        return rows[self.value("_index/_row_of")]

    def attributes(self, count: int) -> dict[str, Attribute]:
        """Return the attributes of the filter."""
        values: dict[str, list[list[str]]] = {
            name: [[] for _ in range(count)] for name in self.ids("_filter/_is_categorical")
        }
        starts = self.value("_filter/_candidates/_starts")
        columns = self.value("_filter/_candidates/_columns")
        for row, term in enumerate(self.ids("_filter/_terms")):
            name, _, value = term.partition(FILTER_SEPARATOR)
            for candidate in columns[starts[row] : starts[row + 1]].tolist():
                values[name][candidate].append(value)
        numbers = zip(self.ids("_filter/_is_numeric"), self.value("_filter/_columns"), strict=True)
        return {
            **{name: Attribute(values=tuple(map(tuple, rows))) for name, rows in values.items()},
            **{name: Attribute(numbers=column) for name, column in numbers},
        }
