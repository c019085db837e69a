"""Values that the lookup tables of a SavedModel know, by the input that is looked up in them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from shortlist.serving.embedded.runtime.graph import functions_of

__all__ = ["VOCABULARY", "add_vocabulary"]

VOCABULARY: Final = "__shortlist_vocabulary"  # a signature, whose name no model uses
_LOOKUP: Final = "LookupTableFindV2"

_Sources = Mapping[str, frozenset[str]]  # nodes of the graph that a node's value depends on


def add_vocabulary(meta_graph: Any) -> dict[tuple[str, str], str]:
    """Add a signature without inputs that returns the keys of lookup tables.

    Keras's `StringLookup` and `IntegerLookup` are such tables, whether their vocabulary is a
    constant, an asset or a variable.

    Args:
        meta_graph: A `MetaGraphDef`; changed in place.

    Returns:
        Output of the signature `VOCABULARY` by signature name and input name; inputs that no
        table looks up are missing.
    """
    graph = meta_graph.graph_def
    nodes = {node.name: node for node in graph.node}
    lookups: dict[str, str] = {}  # table by placeholder
    everything = {name: frozenset([name]) for name in nodes}
    for keys, handle in _lookups(graph.node, everything, functions_of(meta_graph), set()):
        tables = [name for name in handle if "key_dtype" in nodes[name].attr]
        for name in keys if len(tables) == 1 else ():
            lookups.setdefault(name, tables[0])
    found = {
        (signature_name, alias): lookups[name]
        for signature_name, signature in meta_graph.signature_def.items()
        for alias, info in signature.inputs.items()
        if (name := _name(info.name)) in lookups
    }
    for number, table in enumerate(sorted(set(found.values()))):
        export = graph.node.add(
            name=f"{VOCABULARY[2:]}_{number}", op="LookupTableExportV2", input=[table]
        )
        for side in ("key", "value"):
            export.attr[f"T{side}s"].CopyFrom(nodes[table].attr[f"{side}_dtype"])
        meta_graph.signature_def[VOCABULARY].outputs[table].name = f"{export.name}:0"
    return found


def _lookups(
    nodes: Iterable[Any],
    sources: _Sources,
    functions: Mapping[str, Any],
    seen: set[tuple[str, tuple[frozenset[str], ...]]],
) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """Yield the nodes of the graph that each lookup's keys and table come from.

    Args:
        nodes: Nodes of the graph or of a function.
        sources: Sources of the graph's nodes or of the function's arguments.
        functions: Functions by name.
        seen: Functions with the sources of their arguments that were visited.
    """
    nodes = list(nodes)
    inputs = {
        node.name: [_name(item) for item in node.input if not item.startswith("^")]
        for node in nodes
    }
    for node in nodes:
        called = functions.get(node.attr["f"].func.name) if "f" in node.attr else None
        if node.op == _LOOKUP:
            table, keys = (_reached(name, inputs, sources) for name in inputs[node.name][:2])
            yield keys, table
        elif called is not None:
            given = tuple(_reached(name, inputs, sources) for name in inputs[node.name])
            arguments = [argument.name for argument in called.signature.input_arg]
            if (called.signature.name, given) not in seen:
                seen.add((called.signature.name, given))
                bound = dict(zip(arguments, given, strict=False))
                yield from _lookups(called.node_def, bound, functions, seen)


def _reached(name: str, inputs: Mapping[str, list[str]], sources: _Sources) -> frozenset[str]:
    """Return the sources without inputs of their own that a value depends on."""
    reached: set[str] = set()
    seen: set[str] = set()
    pending = [name]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if inputs.get(current):
            pending += inputs[current]
        else:
            reached |= sources.get(current, frozenset())
    return frozenset(reached)


def _name(tensor: str) -> str:
    return tensor.partition(":")[0]
