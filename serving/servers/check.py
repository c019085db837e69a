"""Load and query SavedModels in a process of their own."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortlist.clients.types import Signature, TensorSpec
from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.golden import GoldenQuery, decode, encode

__all__ = ["Asked", "FreshAnswers", "FreshServable", "Vocabulary", "ask_in_fresh_process"]

_LOADING = "loading "  # starts the line that the process writes before each servable


@dataclass(frozen=True, kw_only=True)
class Asked:
    """SavedModel with queries for it.

    Attributes:
        name: Model name.
        version: Version number.
        path: Folder of the version.
        queries: Queries; their outputs are ignored.
        vocabulary: Whether to read what its lookup tables know.
        record_warmup: Whether to write the queries that it answers to its folder, as warm-up
            records.
        allow_file_ops: Whether to load it although it has ops that read or write files, open
            sockets, run Python or print.
    """

    name: str
    version: int
    path: Path
    queries: Sequence[GoldenQuery] = ()
    vocabulary: bool = False
    record_warmup: bool = False
    allow_file_ops: bool = False


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Values that an input's lookup table knows.

    Attributes:
        size: Number of values.
        values: Some of them, ascending, the first and the last among them.
    """

    size: int
    values: tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class FreshServable:
    """Facts about a loaded SavedModel and its answers.

    Attributes:
        error: Reason why it did not load; then only `file_ops`, `ops` and the numbers of the
            graph's format may be set.
        file_ops: Uses of ops that read or write files, open sockets, run Python or print, in
            words.
        seconds: Loading time.
        ops: Ops in the graph, sorted.
        producer: Producer number of the graph's format.
        min_consumer: Oldest consumer number that can read the graph.
        signatures: Its signatures by name.
        vocabulary: Vocabularies by signature name and input name, as far as they are known.
        answers: Outputs by name for each query, or the error message.
    """

    error: str | None = None
    file_ops: tuple[str, ...] = ()
    seconds: float = 0.0
    ops: tuple[str, ...] = ()
    producer: int = 0
    min_consumer: int = 0
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    vocabulary: Mapping[str, Mapping[str, Vocabulary]] = field(default_factory=dict)
    answers: tuple[Mapping[str, Any] | str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FreshAnswers:
    """Answers of a fresh process.

    Attributes:
        tensorflow_producer: Newest graph format that its TensorFlow reads.
        servables: Facts and answers, in the order of the SavedModels.
    """

    tensorflow_producer: int
    servables: tuple[FreshServable, ...]


def ask_in_fresh_process(asked: Sequence[Asked], *, timeout: float = 600.0) -> FreshAnswers:
    """Load SavedModels one after the other in a new process and send each its queries.

    Args:
        asked: SavedModels with their queries.
        timeout: Timeout for everything, in seconds.

    Raises:
        ModelServerError: The process died, for example out of memory, or took too long.
    """
    request = {
        "servables": [
            {
                "name": servable.name,
                "version": servable.version,
                "path": str(servable.path.resolve()),
                "queries": [
                    {"signature": query.signature, "inputs": encode(query.inputs)}
                    for query in servable.queries
                ],
                "vocabulary": servable.vocabulary,
                "record_warmup": servable.record_warmup,
                "allow_file_ops": servable.allow_file_ops,
            }
            for servable in asked
        ]
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "shortlist.serving.embedded.runtime.ask"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        which, _ = _progress(exc.stderr or b"")
        raise ModelServerError(f"loading SavedModels took more than {timeout:g} s{which}") from exc
    if done.returncode != 0:
        which, last = _progress(done.stderr)
        raise ModelServerError(
            f"the process that loads SavedModels ended with status {done.returncode}{which}: {last}"
        )
    answer = json.loads(done.stdout)
    return FreshAnswers(
        tensorflow_producer=answer["tensorflow_producer"],
        servables=tuple(map(_servable, answer["servables"])),
    )


def _progress(stderr: bytes) -> tuple[str, str]:
    """Return which servable was loading, as the end of a sentence, and the last other line."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    loading = [line for line in lines if line.startswith(_LOADING)]
    others = [line for line in lines if line not in loading]
    return f" while {loading[-1]}" if loading else "", others[-1] if others else "no output"


def _servable(answer: Mapping[str, Any]) -> FreshServable:
    graph = {
        "file_ops": tuple(answer.get("file_ops", ())),
        "ops": tuple(answer.get("ops", ())),
        "producer": answer.get("producer", 0),
        "min_consumer": answer.get("min_consumer", 0),
    }
    if "error" in answer:
        return FreshServable(error=answer["error"], **graph)
    return FreshServable(
        **graph,
        seconds=answer["seconds"],
        signatures={name: _signature(fields) for name, fields in answer["signatures"].items()},
        vocabulary={
            signature: {
                name: Vocabulary(size=fields["size"], values=tuple(fields["values"]))
                for name, fields in inputs.items()
            }
            for signature, inputs in answer["vocabulary"].items()
        },
        answers=tuple(
            result["error"] if "error" in result else decode(result["outputs"])
            for result in answer["answers"]
        ),
    )


def _signature(fields: Mapping[str, Any]) -> Signature:
    inputs, outputs = (
        {
            name: TensorSpec(
                **{**spec, "shape": None if spec["shape"] is None else tuple(spec["shape"])}
            )
            for name, spec in fields[side].items()
        }
        for side in ("inputs", "outputs")
    )
    return Signature(inputs=inputs, outputs=outputs, method_name=fields["method_name"])
