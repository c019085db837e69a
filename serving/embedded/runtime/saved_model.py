"""From a SavedModel to an initialised session, in the steps of TensorFlow Serving."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.tensors import decode_varint
from shortlist.serving.embedded.runtime import _tf
from shortlist.serving.embedded.runtime.graph import (
    asset_files,
    init_ops,
    needed_by_signatures,
    set_aside,
)
from shortlist.serving.embedded.runtime.session import Session

__all__ = ["initialize", "open_session", "read_meta_graph"]

log = logging.getLogger(__name__)


def read_meta_graph(path: str, tags: Sequence[str]) -> Any:
    """Return the `MetaGraphDef` with exactly these tags.

    Raises:
        StatusError: The file cannot be read, or no meta graph has these tags.
    """
    proto = _tf.saved_model_pb2.SavedModel()
    file = Path(path, "saved_model.pb")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise StatusError(
            Code.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a "
            f"file called `saved_model.pb`)\nSpecified file path: {path}",
        ) from None
    except OSError as exc:
        raise StatusError(Code.FAILED_PRECONDITION, f"{file}; {exc.strerror}") from exc
    try:
        proto.ParseFromString(data)
    except Exception as exc:  # the DecodeError of any protobuf implementation
        if _is_truncated(data):
            raise StatusError(Code.OUT_OF_RANGE, "Read less bytes than requested") from exc
        raise StatusError(Code.DATA_LOSS, f"Can't parse {file} as binary proto") from exc
    tag_set = set(tags)
    for meta_graph in proto.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tag_set:
            return meta_graph
    raise StatusError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tag_set))} }}. "
        "To inspect available tag-sets in the SavedModel, please use the SavedModel CLI: "
        "`saved_model_cli`",
    )


def _is_truncated(data: bytes) -> bool:
    """Return True if the outermost fields exceed the data."""
    position = 0
    while position < len(data):
        tag, position = decode_varint(data, position)
        if tag is None:
            return True
        if tag & 7 == 0:
            value, position = decode_varint(data, position)
            if value is None:
                return True
        elif tag & 7 == 2:
            length, position = decode_varint(data, position)
            if length is None:
                return True
            position += length
        elif tag & 7 in (1, 5):
            position += 8 if tag & 7 == 1 else 4
        else:
            return False
    return position > len(data)


def open_session(meta_graph: Any, config: Any) -> tuple[Session, dict[str, StatusError]]:
    """Return a session that holds the model's graph, not yet initialised.

    Args:
        meta_graph: A `MetaGraphDef`; changed in place if the runtime lacks an op.
        config: A `ConfigProto`.

    Returns:
        The session, and an error for each signature that cannot run because the runtime lacks
        an op.

    Raises:
        StatusError: The runtime lacks an op outside of functions, or refuses the graph.
    """
    _remove_new_defaults(meta_graph)
    try:
        return _open(meta_graph, config), {}
    except StatusError as exc:
        replaced = set_aside(meta_graph, lambda op: _tf.op_def_registry.get(op) is not None)
        if not replaced:
            raise
        session = _open(meta_graph, config)
        needed = needed_by_signatures(meta_graph, replaced)
        return session, {name: _without_op(exc, op) for name, op in needed.items()}


def _open(meta_graph: Any, config: Any) -> Session:
    signatures = meta_graph.signature_def.values()
    tensors = [
        info.name
        for signature in signatures
        for side in (signature.inputs, signature.outputs)
        for info in side.values()
    ]
    tensors += [meta_graph.saver_def.filename_tensor_name, *_asset_feeds(meta_graph, "")]
    operations = [meta_graph.saver_def.restore_op_name, *map(_operation, init_ops(meta_graph))]
    return Session(meta_graph.graph_def, tensors=tensors, operations=operations, config=config)


def _remove_new_defaults(meta_graph: Any) -> None:
    """Remove attributes that this runtime's ops do not have yet, if they have default values.

    This lets the SavedModel of a newer TensorFlow load, which describes its ops in
    `stripped_op_list`.
    """
    produced = {op.name: op for op in meta_graph.meta_info_def.stripped_op_list.op}
    functions = meta_graph.graph_def.library.function
    for nodes in (meta_graph.graph_def.node, *(function.node_def for function in functions)):
        for node in nodes:
            ours, theirs = _tf.op_def_registry.get(node.op), produced.get(node.op)
            if ours is None or theirs is None or len(ours.attr) == len(theirs.attr):
                continue
            defaults = {attr.name: attr.default_value for attr in theirs.attr}
            for name in node.attr.keys() - {attr.name for attr in ours.attr}:
                if name in defaults and node.attr[name] == defaults[name]:
                    del node.attr[name]


def _without_op(error: StatusError, op: str) -> StatusError:
    """Return the runtime's error about a missing op, for another op."""
    return StatusError(error.code, re.sub(r"(?<=Op type not registered ')[^']*", op, error.message))


def initialize(session: Session, meta_graph: Any, path: str) -> None:
    """Restore the variables and run the model's own initialisation.

    As in TensorFlow Serving, missing variables are not an error here: only requests that read
    one fail.

    Raises:
        StatusError: Restoring or initialising failed.
    """
    assets = _asset_feeds(meta_graph, path)
    prefix = os.path.join(path, "variables", "variables")
    saver = meta_graph.saver_def
    if saver.restore_op_name:
        if os.path.exists(prefix + ".index"):
            _run_target(
                session, saver.restore_op_name, {saver.filename_tensor_name: prefix, **assets}
            )
        else:
            log.info("%s has no variables; nothing is restored", path)
    for op_name in init_ops(meta_graph):
        _run_target(session, op_name, assets)


def _asset_feeds(meta_graph: Any, path: str) -> dict[str, str]:
    return {
        tensor: os.path.join(path, "assets", file)
        for tensor, file in asset_files(meta_graph).items()
    }


def _operation(name: str) -> str:
    return name.partition(":")[0]


def _run_target(session: Session, op_name: str, feeds: dict[str, str]) -> None:
    arrays = {tensor: np.array(value.encode(), object) for tensor, value in feeds.items()}
    session.run_operation(_operation(op_name), arrays)
