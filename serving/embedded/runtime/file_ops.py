"""Ops that reach out of a model: to files, sockets, Python, native code or the log.

A graph is a program of whoever made it, and a few ops let it read `/etc/passwd`, write where
the server may write, or connect to other machines. Models for serving need none of them, apart
from the loader's own: it restores variables and fills lookup tables from the model's assets.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.runtime.graph import (
    asset_files,
    called_functions,
    functions_of,
    init_ops,
)

__all__ = ["EFFECTS", "FileOp", "check_file_ops", "find_file_ops"]


def _effects(effect: str, ops: str) -> dict[str, str]:
    return dict.fromkeys(ops.split(), effect)


# Every op of TensorFlow 2.20 with an input or attribute for a file, an address, code or a graph,
# and the ops whose effect no input tells. A test compares the list with the installed TensorFlow.
EFFECTS: Final[Mapping[str, str]] = {
    **_effects(
        "reads or writes files",
        "CSVDataset CSVDatasetV2 CacheDataset CacheDatasetV2 CalibrationStatisticsSaver "
        "CloseSummaryWriter CreateSummaryDbWriter CreateSummaryFileWriter DTensorRestoreV2 "
        "DatasetToTFRecord DecodeProtoV2 DumpTensor EncodeProto ExperimentalCSVDataset "
        "ExperimentalDatasetToTFRecord ExperimentalLMDBDataset ExperimentalMatchingFilesDataset "
        "ExperimentalSqlDataset FileSystemSetConfiguration FixedLengthRecordDataset "
        "FixedLengthRecordDatasetV2 FixedLengthRecordReader FixedLengthRecordReaderV2 "
        "FixedUnigramCandidateSampler FlushSummaryWriter GenerateVocabRemapping ImmutableConst "
        "ImportEvent InitializeTableFromTextFile InitializeTableFromTextFileV2 LMDBDataset "
        "LMDBReader ListSnapshotChunksDataset LoadAndRemapMatrix LoadDataset MatchingFiles "
        "MatchingFilesDataset MergeV2Checkpoints ReadFile RecordInput Restore RestoreSlice "
        "RestoreV2 Save SaveDataset SaveDatasetV2 SaveSlices SaveV2 Skipgram SnapshotChunkDataset "
        "SnapshotDataset SnapshotDatasetReader SnapshotDatasetV2 SnapshotNestedDatasetReader "
        "SqlDataset TFRecordDataset TFRecordDatasetV2 TFRecordReader TFRecordReaderV2 "
        "TextLineDataset TextLineReader TextLineReaderV2 WholeFileReader WholeFileReaderV2 "
        "WriteAudioSummary WriteFile WriteGraphSummary WriteHistogramSummary WriteImageSummary "
        "WriteRawProtoSummary WriteScalarSummary WriteSummary",
    ),
    **_effects(
        "writes files or opens sockets",
        "Copy CopyHost DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount "
        "DebugNumericSummary DistributedSave",
    ),
    **_effects(
        "opens sockets",
        "DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 "
        "RegisterDataset RegisterDatasetV2 RpcCall RpcCheckStatus RpcClient RpcGetValue "
        "RpcServer RpcServerRegister RpcServerStart",
    ),
    **_effects("runs Python", "EagerPyFunc PyFunc PyFuncStateless"),
    **_effects("calls native code by name", "XlaCustomCall XlaCustomCallV2"),
    # Its ops are out of sight.
    **_effects("runs a graph that it reads", "DatasetFromGraph DeserializeIterator"),
    **_effects("runs a graph that it holds as text", "MlirPassthroughOp _TPUCompileMlir"),
    **_effects("prints, to a file if it likes", "Print PrintV2"),
    **_effects("ends the process", "Abort"),
}
# Read a file only if the attribute names one.
_BY_ATTRIBUTE: Final = {
    "DecodeProtoV2": "descriptor_source",
    "EncodeProto": "descriptor_source",
    "FixedUnigramCandidateSampler": "vocab_file",
}
_NO_FILE: Final = ("local://", "bytes://")
# Allowed to the loader, with the position of the path if that is what the loader feeds.
_RESTORING: Final = {"Restore": 0, "RestoreSlice": 0, "RestoreV2": 0}
_INITIALIZING: Final = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}

_Node = Any  # a NodeDef
_Paths = tuple[bool, ...]  # for each input: is it a path that the loader feeds, unchanged?


@dataclass(frozen=True, kw_only=True)
class FileOp:
    """Use of an op that reaches out of the model.

    Attributes:
        op: Name of the op, or "asset" for a file outside of the SavedModel.
        node: Name of the node, and of the function that it is in.
        user: What runs it, such as `signature 'serving_default'`.
        effect: What it does, from `EFFECTS`.
    """

    op: str
    node: str
    user: str
    effect: str

    def __str__(self) -> str:
        return f"{self.user} runs the op {self.op!r} (node {self.node}), which {self.effect}"


def check_file_ops(meta_graph: Any, path: str) -> None:
    """Check that a model does not reach out of itself.

    Args:
        meta_graph: A `MetaGraphDef`.
        path: Folder of the SavedModel.

    Raises:
        StatusError: It does; the message names op, node and signature.
    """
    if found := find_file_ops(meta_graph, path):
        more = f" ({len(found) - 1} more such uses)" if len(found) > 1 else ""
        raise StatusError(
            Code.FAILED_PRECONDITION,
            f"{found[0]}{more}; if you trust the model, start the server with "
            "--allow_file_ops=true",
        )


def find_file_ops(meta_graph: Any, path: str) -> list[FileOp]:
    """Return the ops by which a model reaches out of itself, one use of each per signature.

    Only what a signature, the initialisation or the restoring of variables can reach is looked
    at, in the graph and in the functions that it calls; no server runs the rest.

    Args:
        meta_graph: A `MetaGraphDef`.
        path: Folder of the SavedModel.
    """
    saver, start = meta_graph.saver_def, init_ops(meta_graph)
    assets = asset_files(meta_graph)
    search = _Search(meta_graph)
    found = [
        FileOp(op="asset", node=repr(file), user="the model", effect="is outside of the SavedModel")
        for file in assets.values()
        if not _inside(os.path.join(path, "assets"), file, path)
    ]
    found += search.run(
        "restoring variables", [saver.restore_op_name], [saver.filename_tensor_name], _RESTORING
    )
    found += search.run("its initialisation", start, list(assets), _INITIALIZING)
    for name, signature in sorted(meta_graph.signature_def.items()):
        outputs = [tensor for info in signature.outputs.values() for tensor in _tensors(info)]
        if outputs != start:
            found += search.run(f"signature {name!r}", outputs)
    return found


def _inside(folder: str, file: str, path: str) -> bool:
    """Return True if an asset is a file of the SavedModel, also after following links."""
    plain = os.path.normpath(os.path.join(folder, file))
    return plain.startswith(folder + os.sep) and os.path.realpath(plain).startswith(
        os.path.realpath(path) + os.sep
    )


class _Search:
    """Searches what is reached from a few nodes of one graph."""

    def __init__(self, meta_graph: Any) -> None:
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._functions = functions_of(meta_graph)
        self._instead = _substitutes(meta_graph)
        self._bodies: dict[str, tuple[dict[str, _Node], list[_Node]]] = {}

    def run(
        self,
        user: str,
        roots: Sequence[str],
        fed: Sequence[str] = (),
        allowed: Mapping[str, int] | None = None,
    ) -> list[FileOp]:
        """Return the first use of each op of `EFFECTS`.

        Args:
            user: What runs the roots.
            roots: Names of nodes or tensors.
            fed: Names of tensors that hold a path which the loader feeds.
            allowed: Ops that are fine with such a path, with the position of its input.
        """
        found: dict[str, FileOp] = {}
        paths = {_tensor(name) for name in fed if name}
        seen: set[tuple[str, _Paths]] = set()
        pending = [("", self._nodes, list(self._reached(roots)), paths)]
        while pending:
            function, nodes, reached, fed_here = pending.pop()
            for node in reached:
                given = tuple(_passed(item, nodes, fed_here) for item in _data_inputs(node))
                if _acts(node) and not _is_allowed(node.op, given, allowed or {}):
                    where = f"{node.name!r} of the function {function!r}" if function else ""
                    found.setdefault(
                        node.op,
                        FileOp(
                            op=node.op,
                            node=where or repr(node.name),
                            user=user,
                            effect=EFFECTS[node.op],
                        ),
                    )
                for called, arguments in self._calls(node, given):
                    if (called, arguments) not in seen:
                        seen.add((called, arguments))
                        pending.append(self._body(called, arguments))
        return [found[op] for op in sorted(found)]

    def _reached(self, roots: Sequence[str]) -> Iterator[_Node]:
        seen: set[str] = set()
        pending = list(roots)
        while pending:
            name = pending.pop().removeprefix("^").partition(":")[0]
            if name in self._nodes and name not in seen:
                seen.add(name)
                pending.extend(self._nodes[name].input)
                yield self._nodes[name]

    def _calls(self, node: _Node, given: _Paths) -> Iterator[tuple[str, _Paths]]:
        for name in called_functions(node):
            # Only a plain call hands on its inputs one by one.
            direct = node.op in (name, "PartitionedCall", "StatefulPartitionedCall")
            for called in (name, *self._instead.get(name, ())):
                if called in self._functions:
                    yield called, given if direct else ()

    def _body(
        self, called: str, arguments: _Paths
    ) -> tuple[str, dict[str, _Node], list[_Node], set[str]]:
        """Return a function's name, all its nodes, those that act or call, and its fed inputs."""
        function = self._functions[called]
        if called not in self._bodies:  # most functions belong to several signatures
            nodes = {node.name: node for node in function.node_def}
            kept = [node for node in nodes.values() if _acts(node) or any(self._calls(node, ()))]
            self._bodies[called] = nodes, kept
        names = [argument.name for argument in function.signature.input_arg]
        fed = {name for name, path in zip(names, arguments, strict=False) if path}
        return called, *self._bodies[called], fed


def _substitutes(meta_graph: Any) -> dict[str, list[str]]:
    """Return what the runtime may run instead of a function: its gradient, or another of its kind.

    The optimizer replaces a function by another with the same `api_implements`.
    """
    library = meta_graph.graph_def.library
    instead: dict[str, list[str]] = {}
    kinds: dict[bytes, list[str]] = {}
    for function in library.function:
        if "api_implements" in function.attr:
            kinds.setdefault(function.attr["api_implements"].s, []).append(function.signature.name)
    for names in kinds.values():
        for name in names:
            instead.setdefault(name, []).extend(names)
    for gradient in library.gradient:
        instead.setdefault(gradient.function_name, []).append(gradient.gradient_func)
    return instead


def _acts(node: _Node) -> bool:
    attribute = _BY_ATTRIBUTE.get(node.op)
    if attribute is None:
        return node.op in EFFECTS
    file = node.attr[attribute].s.decode("utf-8", "replace") if attribute in node.attr else ""
    return bool(file) and not file.startswith(_NO_FILE)


def _is_allowed(op: str, given: _Paths, allowed: Mapping[str, int]) -> bool:
    return op in allowed and len(given) > allowed[op] and given[allowed[op]]


def _data_inputs(node: _Node) -> list[str]:
    return [item for item in node.input if not item.startswith("^")]


def _passed(item: str, nodes: Mapping[str, _Node], fed: set[str]) -> bool:
    """Return True if an input is a fed path, as it is."""
    for _ in range(len(nodes) + 1):  # a malformed graph may have a ring
        if item in fed or _tensor(item) in fed:
            return True
        node = nodes.get(item.partition(":")[0])
        if node is None or node.op != "Identity" or not _data_inputs(node):
            return False
        item = _data_inputs(node)[0]
    return False


def _tensors(info: Any) -> list[str]:
    """Return the names of the tensors of an output, also of a sparse or composite one."""
    sparse = info.coo_sparse
    parts = [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    parts += [part.name for part in info.composite_tensor.components]
    return [name for name in (info.name, *parts) if name]


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"
