"""Ops that reach out of a model, found wherever a server would run them, and nowhere else."""

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.runtime import _tf
from shortlist.serving.embedded.runtime.file_ops import EFFECTS, check_file_ops, find_file_ops

# Names of inputs and attributes by which an op may get at a file, an address, code or a graph ...
SUSPICIOUS = re.compile(
    "(^|.*_)(file|filename|path|url|address|dir|logdir|directory|uri|prefix|dump|ckpt|module|graph"
    "|driver|pattern|region|spec|descriptor|token|serialized|stream)s?(_.*)?"
)
# ... and the ops of TensorFlow 2.20 where they are something else.
HARMLESS = re.compile(
    ".*BoostedTrees.*|Collective.*|(Static)?Regex.*|Parse.*|DeserializeManySparse|DeserializeSparse"
    "|(Experimental)?SetStatsAggregatorDataset|TensorSummaryV2|XlaSparseDenseMatmul.*"
    "|_?XlaHostCompute(Mlir)?|OptionsDataset|XlaCallModule|_XlaSendFromHost.*|_XlaRecvAtHost.*"
)


def node(name: str, op: str, *inputs: str, **attributes: str) -> str:
    parts = [f'name: "{name}" op: "{op}"', *(f'input: "{item}"' for item in inputs)]
    parts += [f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items()]
    return " ".join(parts)


def function(name: str, *nodes: str, inputs: str = "", kind: str = "") -> str:
    arguments = "".join(
        f'input_arg {{ name: "{item}" type: DT_STRING }}' for item in inputs.split()
    )
    attribute = f'attr {{ key: "api_implements" value {{ s: "{kind}" }} }}' if kind else ""
    body = "".join(f"node_def {{ {item} }}" for item in nodes)
    return f'function {{ signature {{ name: "{name}" {arguments} }} {attribute} {body} }}'


def graph(*nodes: str, functions: str = "", rest: str = "", output: str = "out:0") -> Any:
    return text_format.Parse(
        "graph_def {"
        + "".join(f"node {{ {item} }}" for item in nodes)
        + f"library {{ {functions} }} }}"
        + f'signature_def {{ key: "serve" value {{ outputs {{ key: "y" value {{ name: "{output}" '
        + f"}} }} }} }} {rest}",
        _tf.meta_graph_pb2.MetaGraphDef(),
    )


def found(meta_graph: Any, path: str = "/models/m/1") -> list[tuple[str, str]]:
    return [(item.op, item.user) for item in find_file_ops(meta_graph, path)]


def call(name: str, *inputs: str, to: str) -> str:
    return node(name, "StatefulPartitionedCall", *inputs, f=f'func {{ name: "{to}" }}')


@pytest.mark.parametrize(
    "kept",
    [
        graph(node("path", "Const"), node("out", "ReadFile", "path")),
        graph(node("w", "WriteFile"), node("out", "Const", "^w")),
        graph(call("out", to="f"), functions=function("f", node("r", "ReadFile"))),
        graph(
            call("out", to="f"),
            functions=function("f", call("g", to="g")) + function("g", node("r", "ReadFile")),
        ),
        # A function as the op of a node, in a branch, in a list, in a data set, as a gradient.
        graph(node("out", "f"), functions=function("f", node("r", "ReadFile"))),
        graph(
            node("out", "If", then_branch='func { name: "f" }'),
            functions=function("f", node("r", "ReadFile")),
        ),
        graph(
            node("out", "Case", branches='list { func { name: "f" } }'),
            functions=function("f", node("r", "ReadFile")),
        ),
        graph(
            node("d", "MapDataset", f='func { name: "f" }'),
            node("out", "DatasetToSingleElement", "d"),
            functions=function("f", node("r", "ReadFile")),
        ),
        graph(
            node("out", "SymbolicGradient", f='func { name: "f" }'),
            functions=function("f")
            + function("g", node("r", "ReadFile"))
            + 'gradient { function_name: "f" gradient_func: "g" }',
        ),
        # The optimizer swaps functions of the same kind.
        graph(
            call("out", to="f"),
            functions=function("f", kind="lstm")
            + function("g", node("r", "ReadFile"), kind="lstm"),
        ),
        graph(node("out", "EncodeProto", descriptor_source='s: "/etc/passwd"')),
        graph(node("out", "PrintV2", output_stream='s: "file:///tmp/log"')),
        graph(node("out", "PyFunc")),
        # The loader restores the variables, signatures do not.
        graph(node("saver", "Const"), node("out", "RestoreV2", "saver")),
    ],
)
def test_what_a_signature_reaches_is_found(kept: Any) -> None:
    assert [user for _, user in found(kept)] == ["signature 'serve'"]
    with pytest.raises(StatusError, match=r"signature 'serve' runs the op '\w+' \(node '\w+'"):
        check_file_ops(kept, "/models/m/1")


@pytest.mark.parametrize(
    "kept",
    [
        graph(node("out", "Const"), node("r", "ReadFile")),
        graph(node("out", "Const"), functions=function("f", node("r", "ReadFile"))),
        graph(node("out", "EncodeProto", descriptor_source='s: "local://"')),
        graph(node("out", "DecodeProtoV2", descriptor_source='s: "bytes://x"')),
        graph(node("out", "FixedUnigramCandidateSampler", vocab_file='s: ""')),
        # Malformed graphs: rings, a missing node, a missing function.
        graph(node("out", "Identity", "b"), node("b", "Identity", "out")),
        graph(node("out", "Identity", "missing"), output="out:7"),
        graph(call("out", to="f"), functions=function("f", call("again", to="f"))),
        graph(call("out", to="missing")),
    ],
)
def test_what_no_server_runs_is_no_fault(kept: Any) -> None:
    assert found(kept) == []


RESTORE = 'saver_def { filename_tensor_name: "file:0" restore_op_name: "restore" }'


def test_the_loader_restores_variables_from_its_own_path_only() -> None:
    body = function(
        "f", node("id", "Identity", "path"), node("r", "RestoreV2", "id:output:0"), inputs="path"
    )
    call_it = call("restore", "file", "^other", to="f")
    out, file = node("out", "Const"), node("file", "Placeholder")
    assert found(graph(out, file, call_it, functions=body, rest=RESTORE)) == []
    assert found(graph(out, file, node("restore", "RestoreV2", "file:0"), rest=RESTORE)) == []
    expected = [("RestoreV2", "restoring variables")]
    elsewhere = call("restore", "out", to="f")
    assert found(graph(out, file, elsewhere, functions=body, rest=RESTORE)) == expected
    body = function(
        "f", node("c", "StringJoin", "path"), node("r", "RestoreV2", "c:output:0"), inputs="path"
    )
    assert found(graph(out, file, call_it, functions=body, rest=RESTORE)) == expected
    assert found(graph(out, file, node("restore", "SaveV2", "file"), rest=RESTORE)) == [
        ("SaveV2", "restoring variables")
    ]


def assets(filename: str) -> str:
    return (
        f'asset_file_def {{ tensor_info {{ name: "asset:0" }} filename: "{filename}" }}'
        'collection_def { key: "saved_model_main_op" value { node_list { value: "init" } } }'
    )


@pytest.mark.parametrize("op", ["InitializeTableFromTextFile", "InitializeTableFromTextFileV2"])
def test_tables_are_filled_from_the_models_own_assets_only(op: str) -> None:
    out, asset, table = node("out", "Const"), node("asset", "Const"), node("table", "HashTableV2")
    joined = node("joined", "StringJoin", "asset", "out")
    rest = assets("vocabulary.txt")

    def filled(path: str) -> list[tuple[str, str]]:
        return found(graph(out, asset, table, joined, node("init", op, "table", path), rest=rest))

    assert filled("asset") == []
    assert filled("out") == [(op, "its initialisation")]
    assert filled("joined") == [(op, "its initialisation")]
    # Without the loader, the asset's tensor holds whatever the graph says.
    asked = graph(asset, table, node("out", op, "table", "asset"), rest=rest)
    assert found(asked) == [(op, "signature 'serve'")]


def test_assets_are_files_of_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "1" / "assets"
    folder.mkdir(parents=True)
    (folder / "own.txt").write_text("a")
    (tmp_path / "secret").write_text("b")
    (folder / "link.txt").symlink_to(tmp_path / "secret")
    (folder / "inner.txt").symlink_to(folder / "own.txt")
    init = node("init", "NoOp")
    for name, inside in {
        "own.txt": True,
        "inner.txt": True,
        "missing.txt": True,  # the loader says so
        "link.txt": False,
        "/etc/passwd": False,
        "../../secret": False,
        "../saved_model.pb": False,
        "": False,
    }.items():
        meta_graph = graph(node("out", "Const"), init, rest=assets(name))
        assert (found(meta_graph, str(tmp_path / "1")) == []) is inside, name


def test_every_op_of_the_installed_tensorflow_that_takes_a_file_is_known() -> None:
    from tensorflow.core.framework import op_def_pb2

    c = _tf.pywrap_tf_session
    every = op_def_pb2.OpList.FromString(c.TF_GetBuffer(c.TF_GetAllOpList())).op
    registered = [op for op in every if ">" not in op.name]  # ScaNN's, if they are loaded
    unknown = {
        op.name
        for op in registered
        if any(
            SUSPICIOUS.fullmatch(part.name)
            for part in [*op.input_arg, *(attr for attr in op.attr if "string" in attr.type)]
        )
        and not HARMLESS.fullmatch(op.name)
    }
    assert sorted(unknown - EFFECTS.keys()) == []
    # A misspelt name would protect from nothing.
    assert EFFECTS.keys() - {op.name for op in registered} == set()
