"""`python -m …ask`: load SavedModels, describe them and run queries.

Reads one JSON object from stdin and writes one to stdout. In a fresh process, an incomplete
SavedModel cannot use what the exporting process still has in memory.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES
from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.api.tensors import encode_tensor
from shortlist.serving.embedded.runtime import _tf
from shortlist.serving.embedded.runtime.file_ops import find_file_ops
from shortlist.serving.embedded.runtime.saved_model import read_meta_graph
from shortlist.serving.embedded.runtime.servable import (
    RuntimeOptions,
    SavedModelServable,
    load_servable,
)
from shortlist.serving.embedded.runtime.vocabulary import VOCABULARY, add_vocabulary
from shortlist.serving.repository.golden import decode, encode

__all__ = ["main"]

log = logging.getLogger(__name__)

_TAGS: Final = ("serve",)
_SAMPLE: Final = 4  # values of each vocabulary, spread over all of it


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
    path = asked["path"]
    try:
        meta_graph = read_meta_graph(path, _TAGS)
        facts = _facts(meta_graph.graph_def)
        facts["file_ops"] = list(map(str, find_file_ops(meta_graph, path)))
        if facts["file_ops"] and not asked["allow_file_ops"]:
            return {"error": f"not loaded, since {facts['file_ops'][0]}", **facts}
        tables = add_vocabulary(meta_graph) if asked["vocabulary"] else {}
        servable = load_servable(
            asked["name"],
            asked["version"],
            path,
            tags=_TAGS,
            options=RuntimeOptions(session_config=_unoptimized(), allow_file_ops=True),
            meta_graph=meta_graph,
        )
    except StatusError as exc:
        return {"error": f"{exc.code.name}: {exc.message}"}
    seconds = time.monotonic() - started
    try:
        answers, records = [], []
        for query in asked["queries"]:
            answer, record = _answer(servable, query)
            answers.append(answer)
            records += [] if record is None else [record]
        if asked["record_warmup"] and records:
            file = Path(path, contract.WARMUP_FILE)
            file.parent.mkdir(exist_ok=True)
            _tf.write_records(file, records)
        return {
            "seconds": seconds,
            **facts,
            "signatures": {
                name: _signature(definition)
                for name, definition in servable.signatures.items()
                if not name.startswith("__")
            },
            "vocabulary": _vocabulary(servable, tables),
            "answers": answers,
        }
    finally:
        servable.close()


def _unoptimized() -> Any:
    """Return options of a session that runs graphs as they are.

    For a few queries per signature, the optimizer takes longer than it saves: half of the time
    to load and ask an `ivf` servable of 150 candidates.
    """
    config = _tf.config_pb2.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def _facts(graph: Any) -> dict[str, Any]:
    """Return ops and format numbers of the graph, without its own functions."""
    own = {function.signature.name for function in graph.library.function}
    ops = {node.op for node in graph.node}
    for function in graph.library.function:
        ops.update(node.op for node in function.node_def)
    return {
        "ops": sorted(ops - own),
        "producer": graph.versions.producer,
        "min_consumer": graph.versions.min_consumer,
    }


def _signature(definition: messages.SignatureDef) -> dict[str, Any]:
    """Return the fields of a `Signature` of the clients."""
    inputs, outputs = (
        {name: _spec(info) for name, info in sorted(side.items())}
        for side in (definition.inputs, definition.outputs)
    )
    return {"inputs": inputs, "outputs": outputs, "method_name": definition.method_name}


def _spec(info: messages.TensorInfo) -> dict[str, Any]:
    sizes = [dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim]
    return {
        "dtype": messages.DataType.Name(info.dtype),
        "shape": None if info.tensor_shape.unknown_rank else sizes,
        "tensor_name": info.name,
    }


def _vocabulary(
    servable: SavedModelServable, tables: Mapping[tuple[str, str], str]
) -> dict[str, dict[str, Any]]:
    """Return the size of each input's vocabulary and some of its values, by signature."""
    vocabulary: dict[str, dict[str, Any]] = {}
    if not tables:
        return vocabulary
    try:
        keys = servable.run(VOCABULARY, {}, sorted(set(tables.values())))
    except StatusError as exc:
        log.warning("the vocabulary of %s cannot be read: %s", servable.name, exc.message)
        return vocabulary
    for (signature, name), table in tables.items():
        values = sorted(value for value in _plain(keys[table].ravel()) if value != "")
        places = {round(part * (len(values) - 1) / (_SAMPLE - 1)) for part in range(_SAMPLE)}
        vocabulary.setdefault(signature, {})[name] = {
            "size": len(values),
            "values": [values[place] for place in sorted(places)] if values else [],
        }
    return vocabulary


def _answer(
    servable: SavedModelServable, query: Mapping[str, Any]
) -> tuple[dict[str, Any], bytes | None]:
    """Return the answer to a query, and its warm-up record unless the query failed."""
    name = query["signature"]
    definition = servable.signatures.get(name)
    if definition is None:
        return {"error": f"no signature {name!r}"}, None
    missing = sorted(set(definition.inputs) ^ set(query["inputs"]))
    if missing:
        return {"error": f"{name}: input {missing[0]!r} is missing or unknown"}, None
    inputs = {}
    for key, info in definition.inputs.items():
        value = decode(query["inputs"][key])
        try:
            inputs[key] = _array(value, info)
        except (AttributeError, OverflowError, TypeError, ValueError):
            wanted = messages.DataType.Name(info.dtype)
            return {"error": f"{name}: input {key!r} must be {wanted}, got {value!r}"}, None
    try:
        outputs = servable.run(name, inputs, sorted(definition.outputs))
    except StatusError as exc:
        return {"error": f"{exc.code.name}: {exc.message}"}, None
    answer = {"outputs": {key: _plain(value) for key, value in outputs.items()}}
    return answer, _record(servable.name, name, inputs)


def _record(model: str, signature: str, inputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    tensors = {
        key: messages.TensorProto.FromString(encode_tensor(array)) for key, array in inputs.items()
    }
    spec = messages.ModelSpec(name=model, signature_name=signature)
    request = messages.PredictRequest(model_spec=spec, inputs=tensors)
    log_entry = messages.PredictionLog(predict_log=messages.PredictLog(request=request))
    return log_entry.SerializeToString()


def _array(value: Any, info: messages.TensorInfo) -> npt.NDArray[Any]:
    dtype, dims = DTYPES[info.dtype].numpy, info.tensor_shape.dim
    array = np.array(_encoded(value) if dtype.kind == "O" else value, dtype=dtype)
    if dtype.kind == "O" and array.size == 0 and array.ndim != len(dims):
        return array.reshape((0,) * len(dims))  # an empty list has lost its number of dimensions
    one_per_row = array.ndim == 1 and len(dims) == 2 and dims[1].size == 1
    return array[:, np.newaxis] if one_per_row else array


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
