"""Trains two-tower retrieval models and publishes them as versioned SavedModels.

`publish_model` publishes towers and vectors that were trained elsewhere.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortlist.export.config import OwnConfig as OwnConfig
    from shortlist.export.own.publish import publish_model as publish_model
    from shortlist.export.own.queries import Columns as Columns
    from shortlist.export.own.vectors import VectorTable as VectorTable

__all__ = ["Columns", "OwnConfig", "VectorTable", "publish_model"]

_HOMES = {  # imported when they are used: TensorFlow takes seconds
    "Columns": "shortlist.export.own.queries",
    "OwnConfig": "shortlist.export.config",
    "VectorTable": "shortlist.export.own.vectors",
    "publish_model": "shortlist.export.own.publish",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shortlist.export' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
