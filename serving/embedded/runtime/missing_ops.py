"""Loads SavedModels whose functions need ops that the runtime does not have.

TensorFlow Serving instantiates a function when it is first called, so a ScaNN servable on
a server without the ScaNN ops loads, and only requests that need them fail. Importing the
graph from Python looks into every function that is called, and would refuse it: so the
calls that cannot work are set aside before, and requests that need them refused.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

__all__ = ["needed_by_signatures", "set_aside"]

# Takes and gives tensors of any types under the attributes that calls have too.
_STAND_IN: Final = "PyFunc"


def _called(node: Any) -> list[str]:
    names = [value.func.name for value in node.attr.values() if value.HasField("func")]
    names += [func.name for value in node.attr.values() for func in value.list.func]
    return [*names, node.op]


def _missing_by_function(
    functions: Mapping[str, Any], known: Callable[[str], bool]
) -> dict[str, str]:
    """For each function that cannot be instantiated, an op that it lacks."""
    missing: dict[str, str] = {}
    for name, function in functions.items():
        for node in function.node_def:
            if node.op not in functions and not known(node.op):
                missing[name] = node.op
                break
    callers: dict[str, set[str]] = {}
    for name, function in functions.items():
        for node in function.node_def:
            for called in _called(node):
                callers.setdefault(called, set()).add(name)
    pending = list(missing)
    while pending:
        name = pending.pop()
        for caller in callers.get(name, ()):
            if caller not in missing:
                missing[caller] = missing[name]
                pending.append(caller)
    return missing


def set_aside(meta_graph: Any, known: Callable[[str], bool]) -> dict[str, str]:
    """Replaces the calls in a meta graph that need unknown ops by stand-ins that never run.

    Args:
        meta_graph: A `MetaGraphDef`; changed in place.
        known: Whether the runtime has an op.

    Returns:
        For each node that was replaced, the op that it lacks.
    """
    functions = {
        function.signature.name: function for function in meta_graph.graph_def.library.function
    }
    missing = _missing_by_function(functions, known)
    replaced: dict[str, str] = {}
    for node in meta_graph.graph_def.node:
        lacking = next((missing[name] for name in _called(node) if name in missing), None)
        if lacking is None or not {"Tin", "Tout"} <= node.attr.keys():
            continue
        replaced[node.name] = lacking
        for attribute in node.attr.keys() - {"Tin", "Tout"}:
            del node.attr[attribute]
        node.op = _STAND_IN
        node.attr["token"].s = b""
    return replaced


def needed_by_signatures(meta_graph: Any, replaced: Mapping[str, str]) -> dict[str, str]:
    """For each signature whose outputs hang on a replaced node, the op that is missing."""
    inputs = {node.name: list(node.input) for node in meta_graph.graph_def.node}
    return {
        name: lacking
        for name, signature in meta_graph.signature_def.items()
        if (lacking := _reached([i.name for i in signature.outputs.values()], inputs, replaced))
    }


def _reached(
    outputs: Iterable[str], inputs: Mapping[str, list[str]], replaced: Mapping[str, str]
) -> str | None:
    seen: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop().removeprefix("^").partition(":")[0]
        if name in replaced:
            return replaced[name]
        if name not in seen:
            seen.add(name)
            pending.extend(inputs.get(name, ()))
    return None
