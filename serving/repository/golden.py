"""Golden queries: requests with known answers, stored with a version.

An export computes them before it saves; gates and rollouts repeat them after loading.
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
_RANKING = {"ids": contract.CANDIDATE_IDS, "scores": contract.SCORES}  # stored if different


@dataclass(frozen=True, kw_only=True)
class GoldenQuery:
    """Request with its known answer.

    Attributes:
        signature: Signature name.
        inputs: Nested lists of numbers, booleans or strings by input name.
        outputs: The same by output name; numbers may be NaN or infinite.
        ids: Output with candidate ids, best first.
        scores: Output with their scores.
    """

    signature: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    ids: str = contract.CANDIDATE_IDS
    scores: str = contract.SCORES


def write_golden(version_path: Path, queries: Sequence[GoldenQuery]) -> None:
    """Store queries and answers in a version's folder."""
    path = version_path / contract.GOLDEN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {
        "format": GOLDEN_FORMAT,
        "queries": [_stored(query) for query in queries],
    }
    path.write_text(json.dumps(stored, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _stored(query: GoldenQuery) -> dict[str, Any]:
    stored = {"signature": query.signature, "inputs": encode(query.inputs)}
    stored["outputs"] = encode(query.outputs)
    for part, usual in _RANKING.items():
        name = getattr(query, part)
        if name != usual:
            stored[part] = name
    return stored


def read_golden(version_path: Path) -> tuple[GoldenQuery, ...]:
    """Return the queries stored with a version; empty for a foreign SavedModel.

    Raises:
        RepositoryError: The file exists and cannot be read.
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
                **{part: str(query[part]) for part in _RANKING if part in query},
            )
            for query in stored["queries"]
        )
    except FileNotFoundError:
        return ()
    except RepositoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RepositoryError(
            f"{path} cannot be read ({exc!r}); publish the model again under a new number"
        ) from exc


def compare(query: GoldenQuery, outputs: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the answer to a query, or `None` if nothing is.

    Numbers may differ by `TOLERANCE`. Candidates with equal scores may change places.

    Args:
        query: The query with its known answer.
        outputs: The answer, by output name.
    """
    for name, expected in query.outputs.items():
        if name not in outputs:
            return f"{query.signature}: output {name!r} is missing"
        if name == query.ids and query.scores in query.outputs:
            problem = _compare_rankings(expected, query.outputs[query.scores], outputs[name])
        else:
            problem = _difference(expected, outputs[name])
        if problem is not None:
            return f"{query.signature}: output {name!r}: {problem}"
    return None


def _difference(expected: Any, actual: Any) -> str | None:
    if isinstance(expected, list):
        if not isinstance(actual, list | tuple) or len(expected) != len(actual):
            return f"expected {len(expected)} values, got {_short(actual)}"
        for value, other in zip(expected, actual, strict=True):
            problem = _difference(value, other)
            if problem is not None:
                return problem
        return None
    if isinstance(expected, float) and isinstance(actual, int | float):
        return None if _close(expected, float(actual)) else f"expected {expected}, got {actual}"
    if isinstance(actual, bytes):
        actual = actual.decode("utf-8", "replace")
    return None if expected == actual else f"expected {_short(expected)}, got {_short(actual)}"


def _close(expected: float, actual: float) -> bool:
    if not (math.isfinite(expected) and math.isfinite(actual)):
        return expected == actual or (math.isnan(expected) and math.isnan(actual))
    return abs(expected - actual) <= TOLERANCE * max(1.0, abs(expected))


def _compare_rankings(expected: Any, scores: Any, actual: Any) -> str | None:
    if not isinstance(actual, list | tuple) or len(expected) != len(actual):
        return f"expected {len(expected)} rows, got {_short(actual)}"
    for ids, row_scores, got in zip(expected, scores, actual, strict=True):
        if len(ids) != len(got):
            return f"expected {len(ids)} candidates, got {len(got)}"
        got = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in got]
        start = 0
        for end in range(1, len(ids) + 1):
            if end < len(ids) and _close(row_scores[end - 1], row_scores[end]):
                continue
            # The row may cut through candidates with the same score.
            last = end == len(ids) and end - start > 1
            if not last and sorted(ids[start:end]) != sorted(got[start:end]):
                return f"expected {ids[start:end]} at rank {start + 1}, got {got[start:end]}"
            start = end
    return None


def encode(value: Any) -> Any:
    """Return a value as JSON; NaN and infinities become objects."""
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN and no infinity
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value


def decode(value: Any) -> Any:
    """Return the value that `encode` was given."""
    if isinstance(value, dict):
        if set(value) == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
