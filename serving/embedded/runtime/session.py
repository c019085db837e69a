"""A graph in a session, through the runtime's C interface.

TensorFlow's Python classes create an object for every node and more than double the time to
load the runtime; a server needs only a few tensors by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.runtime import _tf

__all__ = ["RunOptions", "Session"]

_c = _tf.pywrap_tf_session


def _full_name(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _has_output(tensor: str, nodes: Mapping[str, str]) -> bool:
    """Return True if the node exists and has outputs."""
    op = nodes.get(tensor.split(":")[0])
    definition = None if op is None else _tf.op_def_registry.get(op)
    return op is not None and (definition is None or bool(definition.output_arg))


def _refuse(error: Any) -> StatusError:
    return StatusError(Code(error.error_code), error.message)


class RunOptions:
    """Serialised `RunOptions` in the runtime's memory, freed with this object."""

    def __init__(self, **fields: int) -> None:
        options = _tf.config_pb2.RunOptions(**fields)
        self.pointer = _c.TF_NewBufferFromString(options.SerializeToString())

    def __del__(self) -> None:
        delete = getattr(_c, "TF_DeleteBuffer", None)  # gone during interpreter shutdown
        if delete is not None:
            delete(self.pointer)


class Session:
    """One graph with its resources.

    Args:
        graph_def: A `GraphDef`.
        tensors: Names of the tensors to feed or fetch; unknown names are ignored.
        operations: Names of the operations to run.
        config: A `ConfigProto`.

    Raises:
        StatusError: The runtime refuses the graph or lacks one of its ops.
    """

    def __init__(
        self, graph_def: Any, *, tensors: Iterable[str], operations: Iterable[str], config: Any
    ) -> None:
        nodes = {node.name: node.op for node in graph_def.node}
        names = sorted({name for name in map(_full_name, tensors) if _has_output(name, nodes)})
        targets = sorted(set(operations) & nodes.keys())
        self._graph = _c.PyGraph()
        try:
            outputs, runnable = _import(self._graph, graph_def, names, targets)
            self._tensors = dict(zip(names, outputs, strict=True))
            self._operations = dict(zip(targets, runnable, strict=True))
            options = _c.TF_NewSessionOptions(target=None, config=config)
            try:
                self._session = _c.TF_NewSessionRef(self._graph, options)
            finally:
                _c.TF_DeleteSessionOptions(options)
            _c.ExtendSession(self._session)
        except _tf.errors.OpError as exc:
            raise _refuse(exc) from exc

    def tensor(self, name: str) -> tuple[Any, np.dtype[Any]] | None:
        """Return handle and dtype of a tensor; None if the graph does not have it."""
        output = self._tensors.get(_full_name(name))
        if output is None:
            return None
        dtype = _tf.dtypes.as_dtype(_c.TF_OperationOutputType(output))
        return output, np.dtype(dtype.as_numpy_dtype)

    def run(
        self, feeds: Mapping[Any, Any], fetches: Sequence[Any], options: RunOptions | None
    ) -> list[Any]:
        """Compute tensors.

        Args:
            feeds: Arrays by handle.
            fetches: Handles of the tensors to compute.
            options: Options of the run, or None.

        Raises:
            StatusError: The run failed.
        """
        pointer = None if options is None else options.pointer
        try:
            results: list[Any] = _c.TF_SessionRun_wrapper(
                self._session, pointer, feeds, fetches, [], None
            )
        except _tf.errors.OpError as exc:
            raise _refuse(exc) from None
        except UnicodeDecodeError as exc:
            # An op quoted an input that is not UTF-8, so the binding could not raise its error
            # and the code is lost. Ops quote invalid inputs.
            text = bytes(exc.object).decode("utf-8", "replace")
            raise invalid(text) from None
        return results

    def run_operation(self, name: str, feeds: Mapping[str, Any]) -> None:
        """Run an operation for its effect, on arrays by tensor name.

        Raises:
            StatusError: The operation or a tensor does not exist, or the run failed.
        """
        operation = self._operations.get(name)
        fed = {self._tensors.get(_full_name(tensor)): value for tensor, value in feeds.items()}
        if operation is None or None in fed:
            raise StatusError(Code.NOT_FOUND, f"The graph lacks {name} or one of its inputs")
        try:
            _c.TF_SessionRun_wrapper(self._session, None, fed, [], [operation], None)
        except _tf.errors.OpError as exc:
            raise _refuse(exc) from exc

    def close(self) -> None:
        """Free the session and its resources; it must not run any more."""
        session, self._session = self._session, None
        if session is not None:
            _c.TF_CloseSession(session)
            _c.TF_DeleteSession(session)
            self._tensors.clear()
            self._operations.clear()
            self._graph = None


def _import(
    graph: Any, graph_def: Any, tensors: Sequence[str], operations: Sequence[str]
) -> tuple[list[Any], list[Any]]:
    """Import a graph definition; return the handles of the tensors and operations."""
    options = _c.TF_NewImportGraphDefOptions()
    definition = _c.TF_NewBufferFromString(graph_def.SerializeToString())
    try:
        # As in the real server: colocation can name nodes that were pruned.
        _c.TF_ImportGraphDefOptionsSetValidateColocationConstraints(options, False)
        for tensor in tensors:
            name, _, index = tensor.partition(":")
            _c.TF_ImportGraphDefOptionsAddReturnOutput(options, name, int(index))
        for operation in operations:
            _c.TF_ImportGraphDefOptionsAddReturnOperation(options, operation)
        results = _c.TF_GraphImportGraphDefWithResults(graph, definition, options)
        try:
            return (
                list(_c.TF_ImportGraphDefResultsReturnOutputs(results)),
                list(_c.TF_ImportGraphDefResultsReturnOperations(results)),
            )
        finally:
            _c.TF_DeleteImportGraphDefResults(results)
    finally:
        _c.TF_DeleteBuffer(definition)
        _c.TF_DeleteImportGraphDefOptions(options)
