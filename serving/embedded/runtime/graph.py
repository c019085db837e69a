"""What a graph says without being run: its functions, assets, start, missing ops and loops.

TensorFlow Serving instantiates a function when it is first called. A ScaNN servable therefore
loads on a server without the ScaNN ops, and only requests that need them fail. Importing the
graph from Python looks into every called function and would refuse it, so calls that cannot
work are replaced first, and requests that need them are refused.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from shortlist.serving.embedded.runtime import _tf

__all__ = [
    "asset_files",
    "called_functions",
    "functions_of",
    "init_ops",
    "looping_signatures",
    "needed_by_signatures",
    "set_aside",
]

_INIT_OP_SIGNATURE: Final = "__saved_model_init_op"
_INIT_OP_COLLECTIONS: Final = ("saved_model_main_op", "legacy_init_op")
_ASSETS_COLLECTION: Final = "saved_model_assets"

# Takes and returns tensors of any type under the same attributes as a call.
_STAND_IN: Final = "PyFunc"
# Their run time depends on the values they are fed, not only on the number of rows.
_LOOP_OPS: Final = frozenset(
    ("While", "StatelessWhile", "Enter", "RefEnter", "For", "ParallelFor", "EagerPyFunc", "PyFunc")
)


def set_aside(meta_graph: Any, known: Callable[[str], bool]) -> dict[str, str]:
    """Replace calls that need unknown ops by stand-ins that never run.

    Args:
        meta_graph: A `MetaGraphDef`; changed in place.
        known: Returns True if the runtime has an op.

    Returns:
        The missing op by the name of the replaced node.
    """
    functions = functions_of(meta_graph)
    missing = _reaching(functions, lambda op: op not in functions and not known(op))
    replaced: dict[str, str] = {}
    for node in meta_graph.graph_def.node:
        lacking = next((missing[name] for name in called_functions(node) if name in missing), None)
        if lacking is None or not {"Tin", "Tout"} <= node.attr.keys():
            continue
        replaced[node.name] = lacking
        for attribute in node.attr.keys() - {"Tin", "Tout"}:
            del node.attr[attribute]
        node.op = _STAND_IN
        node.attr["token"].s = b""
    return replaced


def needed_by_signatures(meta_graph: Any, nodes: Mapping[str, str]) -> dict[str, str]:
    """Return, for each signature that depends on one of these nodes, the value of that node."""
    inputs = {node.name: list(node.input) for node in meta_graph.graph_def.node}
    return {
        name: value
        for name, signature in meta_graph.signature_def.items()
        if (value := _first_reached((o.name for o in signature.outputs.values()), inputs, nodes))
    }


def looping_signatures(meta_graph: Any) -> frozenset[str]:
    """Return the names of the signatures that run a loop."""
    looping = _reaching(functions_of(meta_graph), _LOOP_OPS.__contains__)
    nodes = {
        node.name: node.op
        for node in meta_graph.graph_def.node
        if node.op in _LOOP_OPS or any(name in looping for name in called_functions(node))
    }
    return frozenset(needed_by_signatures(meta_graph, nodes))


def functions_of(meta_graph: Any) -> dict[str, Any]:
    """Return the functions of a graph by name."""
    return {function.signature.name: function for function in meta_graph.graph_def.library.function}


def asset_files(meta_graph: Any) -> dict[str, str]:
    """Return the names of a SavedModel's asset files by the tensor that takes the path."""
    definitions: Iterable[Any] = meta_graph.asset_file_def
    if not meta_graph.asset_file_def and _ASSETS_COLLECTION in meta_graph.collection_def:
        values = []
        for packed in meta_graph.collection_def[_ASSETS_COLLECTION].any_list.value:
            value = _tf.meta_graph_pb2.AssetFileDef()
            packed.Unpack(value)
            values.append(value)
        definitions = values
    return {item.tensor_info.name: item.filename for item in definitions}


def init_ops(meta_graph: Any) -> list[str]:
    """Return the name of the operation that initialises a model, if there is one."""
    if _INIT_OP_SIGNATURE in meta_graph.signature_def:
        outputs = meta_graph.signature_def[_INIT_OP_SIGNATURE].outputs
        return [outputs[_INIT_OP_SIGNATURE].name]
    for key in _INIT_OP_COLLECTIONS:
        if key in meta_graph.collection_def:
            return list(meta_graph.collection_def[key].node_list.value)[:1]
    return []


def called_functions(node: Any) -> list[str]:
    """Return the names of the functions that a node may call; its op may be one."""
    names = [value.func.name for value in node.attr.values() if value.HasField("func")]
    names += [func.name for value in node.attr.values() for func in value.list.func]
    return [*names, node.op]


def _reaching(functions: Mapping[str, Any], sought: Callable[[str], bool]) -> dict[str, str]:
    """Return the functions that run a sought op, directly or in a called function, with the op."""
    reaching: dict[str, str] = {}
    callers: dict[str, set[str]] = {}
    for name, function in functions.items():
        for node in function.node_def:
            if sought(node.op):
                reaching.setdefault(name, node.op)
            for called in called_functions(node):
                callers.setdefault(called, set()).add(name)
    pending = list(reaching)
    while pending:
        name = pending.pop()
        for caller in callers.get(name, ()):
            if caller not in reaching:
                reaching[caller] = reaching[name]
                pending.append(caller)
    return reaching


def _first_reached(
    outputs: Iterable[str], inputs: Mapping[str, list[str]], nodes: Mapping[str, str]
) -> str | None:
    seen: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop().removeprefix("^").partition(":")[0]
        if name in nodes:
            return nodes[name]
        if name not in seen:
            seen.add(name)
            pending.extend(inputs.get(name, ()))
    return None
