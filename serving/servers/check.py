"""Asks SavedModels in a process of their own."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.golden import GoldenQuery, decode, encode

__all__ = ["Asked", "FreshAnswers", "FreshServable", "ask_in_fresh_process"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A SavedModel and what to ask it.

    Attributes:
        name: Model name.
        version: Version number.
        path: Its folder.
        queries: What to ask; their outputs are not looked at.
    """

    name: str
    version: int
    path: Path
    queries: Sequence[GoldenQuery] = ()


@dataclass(frozen=True, kw_only=True)
class FreshServable:
    """What a SavedModel said.

    Attributes:
        error: Why it could not be loaded; None if it was, and only then the rest is there.
        seconds: What loading took.
        ops: Names of the graph's ops, sorted.
        producer: Producer number of the graph's format.
        min_consumer: Oldest consumer number that may read the graph.
        signatures: Names of inputs and outputs, sorted, by signature name.
        answers: Outputs by name for each query, or the error as a text.
    """

    error: str | None = None
    seconds: float = 0.0
    ops: tuple[str, ...] = ()
    producer: int = 0
    min_consumer: int = 0
    signatures: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    answers: tuple[Mapping[str, Any] | str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FreshAnswers:
    """What a fresh process said.

    Attributes:
        tensorflow_producer: The newest graph format that its TensorFlow knows.
        servables: In the order asked.
    """

    tensorflow_producer: int
    servables: tuple[FreshServable, ...]


def ask_in_fresh_process(asked: Sequence[Asked], *, timeout: float = 600.0) -> FreshAnswers:
    """Loads SavedModels one after the other in a new process and asks each its queries.

    Args:
        asked: What to load and to ask.
        timeout: Seconds for everything.

    Raises:
        ModelServerError: The process died, for instance for want of memory, or took too long.
    """
    request = {
        "servables": [
            {
                "name": one.name,
                "version": one.version,
                "path": str(one.path.resolve()),
                "queries": [
                    {"signature": query.signature, "inputs": encode(query.inputs)}
                    for query in one.queries
                ],
            }
            for one in asked
        ]
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "shortlist.serving.embedded.runtime.ask"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ModelServerError(f"loading the SavedModels took more than {timeout:g} s") from exc
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelServerError(
            f"the process that loads SavedModels ended with status {done.returncode}: {last}"
        )
    answer = json.loads(done.stdout)
    return FreshAnswers(
        tensorflow_producer=answer["tensorflow_producer"],
        servables=tuple(_servable(one) for one in answer["servables"]),
    )


def _servable(answer: Mapping[str, Any]) -> FreshServable:
    if "error" in answer:
        return FreshServable(error=answer["error"])
    return FreshServable(
        seconds=answer["seconds"],
        ops=tuple(answer["ops"]),
        producer=answer["producer"],
        min_consumer=answer["min_consumer"],
        signatures=answer["signatures"],
        answers=tuple(
            one["error"] if "error" in one else decode(one["outputs"]) for one in answer["answers"]
        ),
    )
