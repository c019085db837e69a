"""`python -m …ask`: load SavedModels, describe them and run queries.

Reads one JSON object from stdin and writes one to stdout. In a fresh process, an incomplete
SavedModel cannot use what the exporting process still has in memory.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES
from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.runtime import _tf
from shortlist.serving.embedded.runtime.saved_model import read_meta_graph
from shortlist.serving.embedded.runtime.servable import (
    RuntimeOptions,
    SavedModelServable,
    load_servable,
)
from shortlist.serving.repository.golden import decode, encode

__all__ = ["main"]

_TAGS = ("serve",)


def main(stdin: TextIO, stdout: TextIO) -> int:
    """Answer one request of `shortlist.serving.servers.check`."""
    request = json.load(stdin)
    answer = {
        "tensorflow_producer": int(_tf.pywrap_tf_session.get_graph_def_version()),
        "servables": [_servable(asked) for asked in request["servables"]],
    }
    json.dump(answer, stdout, allow_nan=False)
    return 0


def _servable(asked: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    # If the load ends this process, the caller names the servable by this line.
    sys.stderr.write(f"loading {asked['name']} version {asked['version']}\n")
    sys.stderr.flush()
    try:
        facts = _facts(asked["path"])
        servable = load_servable(
            asked["name"],
            asked["version"],
            asked["path"],
            tags=_TAGS,
            options=RuntimeOptions(),
        )
    except StatusError as exc:
        return {"error": f"{exc.code.name}: {exc.message}"}
    seconds = time.monotonic() - started
    try:
        return {
            "seconds": seconds,
            **facts,
            "signatures": {
                name: {
                    "inputs": sorted(definition.inputs),
                    "outputs": sorted(definition.outputs),
                }
                for name, definition in servable.signatures.items()
                if not name.startswith("__")
            },
            "answers": [_answer(servable, query) for query in asked["queries"]],
        }
    finally:
        servable.close()


def _facts(path: str) -> dict[str, Any]:
    """Return ops and format numbers of the graph, without its own functions."""
    graph = read_meta_graph(path, _TAGS).graph_def
    own = {function.signature.name for function in graph.library.function}
    ops = {node.op for node in graph.node}
    for function in graph.library.function:
        ops.update(node.op for node in function.node_def)
    return {
        "ops": sorted(ops - own),
        "producer": graph.versions.producer,
        "min_consumer": graph.versions.min_consumer,
    }


def _answer(servable: SavedModelServable, query: Mapping[str, Any]) -> dict[str, Any]:
    name = query["signature"]
    definition = servable.signatures.get(name)
    if definition is None:
        return {"error": f"no signature {name!r}"}
    missing = sorted(set(definition.inputs) ^ set(query["inputs"]))
    if missing:
        return {"error": f"{name}: input {missing[0]!r} is missing or unknown"}
    try:
        inputs = {
            key: _array(decode(query["inputs"][key]), info)
            for key, info in definition.inputs.items()
        }
        outputs = servable.run(name, inputs, sorted(definition.outputs))
    except StatusError as exc:
        return {"error": f"{exc.code.name}: {exc.message}"}
    return {"outputs": {key: _plain(value) for key, value in outputs.items()}}


def _array(value: Any, info: messages.TensorInfo) -> npt.NDArray[Any]:
    dtype = DTYPES[info.dtype].numpy
    if dtype.kind == "O":
        array = np.array(_encoded(value), dtype=object)
        # An empty list has lost its number of dimensions.
        rank = len(info.tensor_shape.dim)
        return array.reshape((0,) * rank) if array.size == 0 and array.ndim != rank else array
    return np.array(value, dtype=dtype)


def _encoded(value: Any) -> Any:
    return [_encoded(item) for item in value] if isinstance(value, list) else value.encode()


def _plain(array: npt.NDArray[Any]) -> Any:
    values = array.tolist()
    return encode(_texts(values) if array.dtype.kind == "O" else values)


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(main(sys.stdin, sys.stdout))
