"""Features and user ids as the types of a signature's inputs."""

import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Final

from shortlist.clients._arguments import shown
from shortlist.clients._calls.queries import feature_text
from shortlist.clients._codecs.requests import Input, Target
from shortlist.clients.types import Features, TensorSpec
from shortlist.clients.wire.dtypes import by_name

__all__ = ["feature_inputs", "is_column", "user_ids"]

_WORDS: Final = {"s": "a string", "i": "a whole number", "f": "a number", "b": "true or false"}
_EXAMPLES: Final[dict[str, Any]] = {"s": "mobile", "i": 3, "f": 2.5, "b": True}
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_BOOLS: Final = {"true": True, "false": False}


def is_column(spec: TensorSpec) -> bool:
    """Return whether a tensor has one value in each row, `[batch, 1]`."""
    return spec.shape is not None and len(spec.shape) == 2 and spec.shape[1] == 1


def user_ids(target: Target, users: list[str], name: str, spec: TensorSpec) -> Input:
    """Return user ids as an input that takes strings or whole numbers.

    Raises:
        ValueError: A user id is not a whole number.
    """
    ids: list[Any] = users
    if spec.dtype != "DT_STRING" and _kind(spec) == "i":
        limit = 2**31 if spec.dtype == "DT_INT32" else 2**63
        for user in users:
            if not (_WHOLE.fullmatch(user) and -limit <= int(user) < limit):
                raise ValueError(
                    f"user_ids: {target} takes whole numbers ({name}: {spec}), got {user!r}"
                )
        ids = list(map(int, users))
    return Input([[user] for user in ids] if is_column(spec) else ids, spec.dtype)


def feature_inputs(
    target: Target, rows: Sequence[Features], specs: dict[str, TensorSpec]
) -> dict[str, Input]:
    """Return the inputs that come as features.

    Args:
        target: The servable.
        rows: Features of each user.
        specs: Types and shapes of the inputs.

    Raises:
        ValueError: A feature is missing, unknown or of a wrong type.
    """
    known = ", ".join(f"{name} ({spec})" for name, spec in specs.items())
    for index, row in enumerate(rows):
        where = f"features[{index}]"
        if unknown := sorted(set(row) - set(specs)):
            raise ValueError(f"{where}: {target} has no feature {unknown[0]!r}; it has: {known}")
        if missing := {name: spec for name, spec in specs.items() if name not in row}:
            lacks = f"{where} lacks {', '.join(missing)}; " if row else ""
            raise ValueError(f"{lacks}{target} needs the features {known}: {_remedy(missing)}")
    return {
        name: Input(_tensor(name, spec, [row[name] for row in rows]), spec.dtype)
        for name, spec in specs.items()
    }


def _remedy(missing: dict[str, TensorSpec]) -> str:
    """Return what to write for missing features, in Python and on the command line."""
    examples = {name: _EXAMPLES.get(_kind(spec), "…") for name, spec in missing.items()}
    values = {
        name: [example] if _is_list(missing[name]) else example
        for name, example in examples.items()
    }
    options = " ".join(f"--feature {name}={example}" for name, example in examples.items())
    return f"features=[{values}], or {options}"


def _kind(spec: TensorSpec) -> str:
    dtype = by_name(spec.dtype)
    return "" if dtype is None else dtype.kind


def _is_list(spec: TensorSpec) -> bool:
    return spec.shape is not None and len(spec.shape) == 2 and not is_column(spec)


def _tensor(name: str, spec: TensorSpec, values: list[Any]) -> Any:
    """Return the values of one feature with the shape of its input."""
    rank = 1 if spec.shape is None else len(spec.shape)
    names = [f"{name!r} of features[{index}]" for index in range(len(values))]
    if rank > 2 or _kind(spec) not in _WORDS:
        raise ValueError(f"{name} ({spec}) cannot be passed as a feature; use predict")
    rows = [
        [_value(where, spec, item) for item in (value if isinstance(value, list) else [value])]
        for where, value in zip(names, values, strict=True)
    ]
    if _is_list(spec):
        width = (spec.shape or ())[1]
        most = max(map(len, rows)) if width is None else width
        padding = [""] if _kind(spec) == "s" else []
        most = max(most, len(padding))
        rows = [row + padding * (most - len(row)) for row in rows]
        for where, row in zip(names, rows, strict=True):
            if len(row) != most:
                raise ValueError(f"{where} must have {most} values, got {len(row)}")
        return rows
    for where, row in zip(names, rows, strict=True):
        if len(row) != 1:
            raise ValueError(f"{where} must be a single value ({spec}), got {shown(row)}")
    if is_column(spec):
        return rows
    singles = [row[0] for row in rows]
    if rank:
        return singles
    if singles.count(singles[0]) < len(singles):
        raise ValueError(f"{name} ({spec}) must be the same for all users of a call")
    return singles[0]


def _value(where: str, spec: TensorSpec, value: Any) -> Any:
    """Return one value as the input's type; numbers may be written as strings."""
    kind = _kind(spec)
    if kind == "s":
        return feature_text(where, value)
    if isinstance(value, str):
        if kind == "i" and _WHOLE.fullmatch(value):
            return int(value)
        if kind == "b" and value.lower() in _BOOLS:
            return _BOOLS[value.lower()]
        if kind == "f":
            try:
                return float(value)
            except ValueError:
                pass
    elif isinstance(value, bool):
        if kind == "b":
            return value
    elif kind == "i" and isinstance(value, Integral):
        return int(value)
    elif kind == "f" and isinstance(value, Real) and math.isfinite(value):
        return float(value)
    raise ValueError(f"{where} must be {_WORDS[kind]} ({spec}), got {shown(value)}")
