"""Write SavedModels, and read what they need from the server that loads them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.export._tf import saved_model_pb2, tf
from shortlist.export.config import SCANN_NAMESPACE

__all__ = ["GraphFacts", "check_producer", "inspect_saved_model", "save"]


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """Requirements of a SavedModel on its server.

    Attributes:
        ops: Names of all ops without the graph's own functions, sorted.
        tensorflow_producer: Producer number of the graph's format.
        tensorflow_min_consumer: Oldest consumer number that may read the graph.
    """

    ops: tuple[str, ...]
    tensorflow_producer: int
    tensorflow_min_consumer: int


def save(module: Any, path: Path, signatures: Mapping[str, Any]) -> None:
    """Save a small module, never a training model, as a SavedModel.

    Args:
        module: `tf.Module` that holds what the signatures use.
        path: Folder to write into.
        signatures: Concrete functions by signature name.
    """
    # TensorFlow saves ops of other namespaces only if they are listed.
    options = tf.saved_model.SaveOptions(namespace_whitelist=[SCANN_NAMESPACE])
    tf.saved_model.save(module, str(path), signatures=dict(signatures), options=options)


def inspect_saved_model(path: Path) -> GraphFacts:
    """Return the facts of the SavedModel in `path`, read from its graph alone."""
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = message.meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    ops = {node.op for node in _nodes(graph)} - functions
    return GraphFacts(
        ops=tuple(sorted(ops)),
        tensorflow_producer=graph.versions.producer,
        tensorflow_min_consumer=graph.versions.min_consumer,
    )


def check_producer(target: int | None) -> None:
    """Check that a server which reads graph formats up to `target` reads that of this TensorFlow.

    Raises:
        ValueError: It does not.
    """
    written = tf.version.GRAPH_DEF_VERSION
    if target is not None and target < written:
        raise ValueError(
            f"TensorFlow {tf.__version__} writes graph format {written}, and --target-producer is "
            f"{target}; export with the target's TensorFlow, or publish anyway with --allow ops"
        )


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
