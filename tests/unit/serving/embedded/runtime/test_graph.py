"""Replaced calls, affected signatures and loops, on fakes of the protos."""

from dataclasses import dataclass, field
from typing import Any

from shortlist.serving.embedded.runtime.graph import (
    looping_signatures,
    needed_by_signatures,
    set_aside,
)


@dataclass
class Name:
    name: str


@dataclass
class Attribute:
    func: Name = field(default_factory=lambda: Name(""))
    list: Any = field(default_factory=lambda: Functions([]))
    s: bytes = b""

    def HasField(self, name: str) -> bool:  # noqa: N802
        return bool(self.func.name)


@dataclass
class Functions:
    func: list[Name]


class Attributes(dict[str, Attribute]):
    def __missing__(self, key: str) -> Attribute:
        self[key] = Attribute()
        return self[key]


@dataclass
class Node:
    name: str
    op: str
    input: list[str] = field(default_factory=list)
    attr: Attributes = field(default_factory=Attributes)


def call(name: str, function: str, *inputs: str) -> Node:
    attributes = Attributes(f=Attribute(func=Name(function)), Tin=Attribute(), Tout=Attribute())
    return Node(name, "PartitionedCall", list(inputs), attributes)


@dataclass
class Function:
    signature: Name
    node_def: list[Node]


@dataclass
class Library:
    function: list[Function]


@dataclass
class Graph:
    node: list[Node]
    library: Library


@dataclass
class Signature:
    outputs: dict[str, Name]


@dataclass
class MetaGraph:
    graph_def: Graph
    signature_def: dict[str, Signature]


def meta_graph() -> MetaGraph:
    functions = [
        Function(Name("search"), [Node("n", "Scann>Search")]),
        Function(Name("retrieve"), [call("inner", "search")]),
        Function(Name("embed"), [Node("n", "MatMul")]),
    ]
    nodes = [
        call("retrieval", "retrieve"),
        call("embedding", "embed"),
        Node("cut", "Identity", ["retrieval:1"]),
    ]
    signatures = {
        "retrieve": Signature({"scores": Name("cut:0")}),
        "embed": Signature({"query": Name("embedding:0")}),
    }
    return MetaGraph(Graph(nodes, Library(functions)), signatures)


def known(op: str) -> bool:
    return op in ("MatMul", "Identity", "PartitionedCall")


def test_calls_that_reach_an_unknown_op_are_replaced() -> None:
    model = meta_graph()
    assert set_aside(model, known) == {"retrieval": "Scann>Search"}
    ops = {node.name: node.op for node in model.graph_def.node}
    assert ops == {"retrieval": "PyFunc", "embedding": "PartitionedCall", "cut": "Identity"}


def test_only_signatures_behind_such_a_call_are_refused() -> None:
    model = meta_graph()
    replaced = set_aside(model, known)
    assert needed_by_signatures(model, replaced) == {"retrieve": "Scann>Search"}


def test_model_without_unknown_ops_is_unchanged() -> None:
    model = meta_graph()
    assert set_aside(model, lambda op: True) == {}
    assert model.graph_def.node[0].op == "PartitionedCall"


def test_only_signatures_that_reach_a_loop_are_looping() -> None:
    model = meta_graph()
    assert looping_signatures(model) == frozenset()
    model.graph_def.library.function[0].node_def.append(Node("loop", "StatelessWhile"))
    assert looping_signatures(model) == {"retrieve"}
    model.graph_def.node[1].op = "While"
    assert looping_signatures(model) == {"retrieve", "embed"}
