"""Known queries and their answers, stored with a version: what it must still answer.

An export computes them before it saves; gates and rollouts ask them again after loading.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError

__all__ = ["TOLERANCE", "GoldenQuery", "compare", "decode", "encode", "read_golden", "write_golden"]

TOLERANCE = 1e-5  # absolute below 1, relative above
GOLDEN_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class GoldenQuery:
    """One request with its known answer.

    Attributes:
        signature: Signature name.
        inputs: Nested lists of numbers, booleans or strings by input name.
        outputs: The same by output name; numbers may be NaN or infinite.
    """

    signature: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def write_golden(version_path: Path, queries: Sequence[GoldenQuery]) -> None:
    """Stores queries with their answers in a version's folder."""
    path = version_path / contract.GOLDEN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {
        "format": GOLDEN_FORMAT,
        "queries": [
            {
                "signature": query.signature,
                "inputs": encode(query.inputs),
                "outputs": encode(query.outputs),
            }
            for query in queries
        ],
    }
    path.write_text(json.dumps(stored, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def read_golden(version_path: Path) -> tuple[GoldenQuery, ...]:
    """Queries stored with a version; empty for a SavedModel from elsewhere.

    Raises:
        RepositoryError: The file is there and cannot be read.
    """
    path = version_path / contract.GOLDEN_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != GOLDEN_FORMAT:
            raise RepositoryError(
                f"{path} has format {stored['format']!r}, this Shortlist reads {GOLDEN_FORMAT}"
            )
        return tuple(
            GoldenQuery(
                signature=str(query["signature"]),
                inputs=decode(query["inputs"]),
                outputs=decode(query["outputs"]),
            )
            for query in stored["queries"]
        )
    except FileNotFoundError:
        return ()
    except RepositoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RepositoryError(
            f"{path} cannot be read ({exc!r}); publish the model anew under a new number"
        ) from exc


def compare(query: GoldenQuery, outputs: Mapping[str, Any]) -> str | None:
    """What is wrong with the answers to a query; None if nothing is.

    Numbers may differ by `TOLERANCE`. Candidates of equal scores may change places.

    Args:
        query: The query with its known answer.
        outputs: The answer, by output name.
    """
    for name, expected in query.outputs.items():
        if name not in outputs:
            return f"{query.signature}: output {name!r} is missing"
        if name == contract.CANDIDATE_IDS and contract.SCORES in query.outputs:
            found = _compare_rankings(expected, query.outputs[contract.SCORES], outputs[name])
        else:
            found = _difference(expected, outputs[name])
        if found is not None:
            return f"{query.signature}: output {name!r}: {found}"
    return None


def _difference(expected: Any, actual: Any) -> str | None:
    if isinstance(expected, list):
        if not isinstance(actual, list | tuple) or len(expected) != len(actual):
            return f"expected {len(expected)} values, got {_short(actual)}"
        for one, other in zip(expected, actual, strict=True):
            found = _difference(one, other)
            if found is not None:
                return found
        return None
    if isinstance(expected, float) and isinstance(actual, int | float):
        return None if _close(expected, float(actual)) else f"expected {expected}, got {actual}"
    if isinstance(actual, bytes):
        actual = actual.decode("utf-8", "replace")
    return None if expected == actual else f"expected {_short(expected)}, got {_short(actual)}"


def _close(one: float, other: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return one == other or (math.isnan(one) and math.isnan(other))
    return abs(one - other) <= TOLERANCE * max(1.0, abs(one))


def _compare_rankings(expected: Any, scores: Any, actual: Any) -> str | None:
    if not isinstance(actual, list | tuple) or len(expected) != len(actual):
        return f"expected {len(expected)} rows, got {_short(actual)}"
    for ids, row_scores, got in zip(expected, scores, actual, strict=True):
        if len(ids) != len(got):
            return f"expected {len(ids)} candidates, got {len(got)}"
        got = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in got]
        start = 0
        for end in range(1, len(ids) + 1):
            if end < len(ids) and _close(row_scores[end - 1], row_scores[end]):
                continue
            # Beyond the end of the row there may be more candidates of the last score.
            last = end == len(ids) and end - start > 1
            if not last and sorted(ids[start:end]) != sorted(got[start:end]):
                return f"expected {ids[start:end]} at rank {start + 1}, got {got[start:end]}"
            start = end
    return None


def encode(value: Any) -> Any:
    """A value as JSON knows it: NaN and infinities become objects."""
    if isinstance(value, Mapping):
        return {key: encode(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [encode(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN and no infinity
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value


def decode(value: Any) -> Any:
    """The value that `encode` made this of."""
    if isinstance(value, dict):
        if set(value) == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: decode(one) for key, one in value.items()}
    if isinstance(value, list):
        return [decode(one) for one in value]
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
