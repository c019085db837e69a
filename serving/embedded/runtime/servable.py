"""Runs the signatures of one loaded SavedModel, with the runtime that TensorFlow Serving uses.

Each servable has its own graph and session. Each session has its own devices, which hold
variables, tables and other resources, so versions never share any.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import numpy_name
from shortlist.serving.embedded.api.errors import StatusError, invalid
from shortlist.serving.embedded.api.interfaces import always_active
from shortlist.serving.embedded.runtime import _tf
from shortlist.serving.embedded.runtime.file_ops import check_file_ops
from shortlist.serving.embedded.runtime.graph import looping_signatures
from shortlist.serving.embedded.runtime.parts import (
    BOUNDS,
    MIN_ROWS,
    RunTimes,
    check_bounds,
    row_inputs,
    rows_of,
    run_parts,
)
from shortlist.serving.embedded.runtime.saved_model import initialize, open_session, read_meta_graph
from shortlist.serving.embedded.runtime.session import RunOptions, Session

__all__ = ["RuntimeOptions", "SavedModelServable", "load_servable", "warm_runtime"]

log = logging.getLogger(__name__)

_CALLERS_THREAD: Final = -1
_scann_lock: Final = threading.Lock()
_scann_tried = False
_scann_problem = "this server runs without ScaNN's ops (--enable_scann_ops=false)"


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Options of sessions.

    Attributes:
        session_config: A `ConfigProto`; None for the defaults.
        scann_ops: Register ScaNN's ops if scann is installed.
        allow_file_ops: Load models with ops that reach out of the model; see `file_ops`.
    """

    session_config: Any = None
    scann_ops: bool = True
    allow_file_ops: bool = False


def warm_runtime(options: RuntimeOptions) -> None:
    """Register custom ops; cheap after the first call in the process."""
    global _scann_tried, _scann_problem
    if not options.scann_ops:
        return
    with _scann_lock:
        if _scann_tried:
            return
        _scann_tried = True
        try:
            _tf.load_scann_ops()
        except ImportError as exc:
            _scann_problem = str(exc)  # reported for a servable that needs them


def load_servable(
    name: str,
    version: int,
    path: str,
    *,
    tags: Sequence[str],
    options: RuntimeOptions,
    meta_graph: Any = None,
) -> "SavedModelServable":
    """Load one version of a model.

    Args:
        name: Model name.
        version: Version number.
        path: Folder of the SavedModel.
        tags: Tag set of the meta graph to load.
        options: Options of its session.
        meta_graph: The meta graph if it has been read; None to read it.

    Raises:
        StatusError: The SavedModel cannot be loaded.
    """
    warm_runtime(options)
    started = time.monotonic()
    meta_graph = meta_graph or read_meta_graph(path, tags)
    if not options.allow_file_ops:
        check_file_ops(meta_graph, path)
    session, refused = open_session(
        meta_graph, options.session_config or _tf.config_pb2.ConfigProto()
    )
    if any("'Scann>" in error.message for error in refused.values()):
        log.warning("%s version %d cannot answer: %s", name, version, _scann_problem)
    try:
        initialize(session, meta_graph, path)
        servable = SavedModelServable(name, version, session, meta_graph, refused)
    except BaseException:
        session.close()
        raise
    log.info("loaded %s version %d in %.2f s", name, version, time.monotonic() - started)
    return servable


class _Signature:
    """Names of a signature's tensors, and its run time so far."""

    def __init__(self, name: str, definition: messages.SignatureDef, *, loops: bool) -> None:
        self.inputs = {alias: info.name for alias, info in definition.inputs.items()}
        self.outputs = {alias: info.name for alias, info in definition.outputs.items()}
        self.loops = loops
        self.row_inputs = row_inputs(name, definition)
        self.bounds = BOUNDS & definition.inputs.keys() if self.row_inputs else frozenset()
        self.times = RunTimes()


class SavedModelServable:
    """A loaded version; satisfies `interfaces.Servable`."""

    def __init__(
        self,
        name: str,
        version: int,
        session: Session,
        meta_graph: Any,
        refused: Mapping[str, StatusError],
    ) -> None:
        self._refused = refused
        self.name = name
        self.version = version
        self.signatures: dict[str, messages.SignatureDef] = {
            key: messages.SignatureDef.FromString(value.SerializeToString())
            for key, value in meta_graph.signature_def.items()
        }
        looping = looping_signatures(meta_graph)
        self._runs = {
            key: _Signature(key, definition, loops=key in looping)
            for key, definition in self.signatures.items()
        }
        self._session = session
        self._tensors: dict[str, Any] = {}
        self._dtypes: dict[str, Any] = {}
        self._in_caller = RunOptions(inter_op_thread_pool=_CALLERS_THREAD)

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        output_names: Sequence[str],
        *,
        timeout: float | None = None,
        active: Callable[[], bool] = always_active,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run one signature; see `interfaces.Servable.run`."""
        if signature_name in self._refused:
            refusal = self._refused[signature_name]
            raise StatusError(refusal.code, refusal.message)
        signature = self._runs[signature_name]
        if signature.bounds:
            check_bounds(inputs, signature.bounds)
        rows = rows_of(inputs, signature.row_inputs)
        if rows is None:
            rows = max((value.shape[0] for value in inputs.values() if value.ndim), default=1)
        elif rows > MIN_ROWS and rows > signature.times.part_rows:
            return run_parts(
                lambda part, rows, left: self._run_rows(signature, part, output_names, rows, left),
                inputs,
                signature.row_inputs,
                signature.times,
                timeout=timeout,
                active=active,
            )
        return self._run_rows(signature, inputs, output_names, rows, timeout)

    def _run_rows(
        self,
        signature: _Signature,
        inputs: Mapping[str, npt.NDArray[Any]],
        output_names: Sequence[str],
        rows: int,
        timeout: float | None,
    ) -> dict[str, npt.NDArray[Any]]:
        feeds = {signature.inputs[alias]: value for alias, value in inputs.items()}
        fetches = [signature.outputs[alias] for alias in output_names]
        inline = not signature.loops and signature.times.is_short(rows)
        started = time.perf_counter()
        arrays = self._run(feeds, fetches, inline=inline, timeout=timeout)
        if rows:
            signature.times.add(rows, time.perf_counter() - started)
        return dict(zip(output_names, arrays, strict=True))

    def run_tensors(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        fetches: Sequence[str],
        *,
        timeout: float | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Run by tensor names; see `interfaces.Servable.run_tensors`."""
        return self._run(feeds, fetches, inline=False, timeout=timeout)

    def close(self) -> None:
        """Free the session and its resources; the servable must not run any more."""
        self._session.close()
        self._tensors.clear()

    def _run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        fetches: Sequence[str],
        *,
        inline: bool,
        timeout: float | None,
    ) -> list[npt.NDArray[Any]]:
        fed = {}
        for index, (name, value) in enumerate(feeds.items()):
            tensor = self._tensors.get(name) or self._lookup(name)
            if value.dtype != self._dtypes[name]:
                raise invalid(
                    f"Expects arg[{index}] to be {numpy_name(self._dtypes[name])} but "
                    f"{numpy_name(value.dtype)} is provided",
                )
            fed[tensor] = value
        fetched = [self._tensors.get(name) or self._lookup(name) for name in fetches]
        options: RunOptions | None
        if inline:
            options = self._in_caller
        elif timeout is not None:
            options = RunOptions(timeout_in_ms=max(1, int(timeout * 1000)))
        else:
            options = None
        return [_as_array(array) for array in self._session.run(fed, fetched, options)]

    def _lookup(self, name: str) -> Any:
        tensor = self._session.tensor(name)
        if tensor is None:
            raise invalid(
                f"Tensor {name}, specified in either feed_devices or fetch_devices was not "
                "found in the Graph",
            )
        output, self._dtypes[name] = tensor
        self._tensors[name] = output
        return output


def _as_array(value: Any) -> npt.NDArray[Any]:
    """Return an array, also for a scalar string, which the runtime returns as plain bytes."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
