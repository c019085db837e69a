"""Reads interactions and catalogues of any format into one form."""

from typing import TYPE_CHECKING, Any

from shortlist.export.data.config import DataConfig, DataError

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Attribute, Context, Dataset
    from shortlist.export.data.loading import load

__all__ = ["Attribute", "Context", "DataConfig", "DataError", "Dataset", "load"]


def __getattr__(name: str) -> Any:
    # The command's parser imports `shortlist.export.cli.options`, also in an installation of the
    # clients alone; NumPy and PyArrow are imported only when data is read.
    if name in {"Attribute", "Context", "Dataset"}:
        from shortlist.export.data import dataset

        return getattr(dataset, name)
    if name == "load":
        from shortlist.export.data.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
