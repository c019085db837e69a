"""The only module of the embedded server that imports TensorFlow: the runtime, not the API.

`import tensorflow` spends most of its time on Keras, datasets and the public API, which
serving does not need: it takes 8 s, the kernels and the session's C interface alone less than
1 s (2 cores). So the packages `tensorflow` and `tensorflow.python` are entered without running
their `__init__`; it runs when a name of the public API is first used.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.installed import missing_package, scann_problem

# TensorFlow reads both when it is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class _DeferredPackage(ModuleType):
    """A package whose submodules can be imported before its own `__init__` has run."""

    def __getattr__(self, name: str) -> Any:
        # `import` looks for dunders, and for submodules while they are imported.
        if name.startswith("__") or f"{self.__name__}.{name}" in sys.modules:
            raise AttributeError(name)
        spec: ModuleSpec = self.__dict__["__spec__"]
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert spec.loader is not None
        spec.loader.exec_module(self)
        return getattr(self, name)


def _defer(name: str) -> None:
    """Enter the package `name` without running it, unless it has run already."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(missing_package([name], extra="embedded"))
    package = _DeferredPackage(name)
    package.__spec__ = spec
    package.__loader__ = spec.loader
    package.__file__ = spec.origin
    package.__package__ = name
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = package
    parent, _, leaf = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], leaf, package)


_defer("tensorflow")
_defer("tensorflow.python")

from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2  # noqa: E402
from tensorflow.python.client import pywrap_tf_session  # noqa: E402
from tensorflow.python.framework import dtypes, errors, op_def_registry  # noqa: E402
from tensorflow.python.lib.io import _pywrap_record_io  # noqa: E402

__all__ = [
    "config_pb2",
    "dtypes",
    "errors",
    "load_scann_ops",
    "meta_graph_pb2",
    "op_def_registry",
    "public_api",
    "pywrap_tf_session",
    "read_records",
    "saved_model_pb2",
    "tensor_pb2",
    "types_pb2",
    "write_records",
]


def load_scann_ops() -> None:
    """Register the ScaNN ops with the runtime, without scann's Python code.

    Raises:
        ImportError: scann is not installed, or its library does not fit this TensorFlow.
    """
    if problem := scann_problem():
        raise ImportError(problem)
    spec = importlib.util.find_spec("scann")
    folders = None if spec is None else spec.submodule_search_locations
    library = Path(*(folders or ())[:1], "scann_ops", "cc", "_scann_ops.so")
    try:
        pywrap_tf_session.TF_LoadLibrary(str(library))
    except errors.OpError as exc:
        raise ImportError(f"the ScaNN ops in {library} cannot be loaded: {exc}") from exc


def read_records(path: Path) -> Iterator[bytes]:
    """Return the records of a TFRecord file.

    Raises:
        StatusError: The file is damaged or cannot be read.
    """
    try:
        yield from _pywrap_record_io.RecordIterator(str(path), "")
    except errors.OpError as exc:
        raise StatusError(Code(exc.error_code), exc.message) from exc


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a TFRecord file."""
    options = _pywrap_record_io.RecordWriterOptions("")
    with _pywrap_record_io.RecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)


def public_api() -> Any:
    """Return the `tensorflow` package with its whole API, which takes seconds to load."""
    import tensorflow

    return tensorflow
