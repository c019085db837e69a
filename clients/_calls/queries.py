"""Queries: who asks, with the history and features of each; checks and inputs."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final, TypeVar

from shortlist.clients import contract, errors
from shortlist.clients._arguments import mapping, number, shown, text, text_remedy, texts
from shortlist.clients._calls.rankings import checked_ids
from shortlist.clients._codecs.requests import Input, Target
from shortlist.clients.types import Features

__all__ = ["Queries", "checked_queries", "feature_text", "inputs_for"]

T = TypeVar("T")

_MAX_AGE: Final = contract.MAX_HISTORY_AGE
_MIN_WEIGHT, _MAX_WEIGHT = contract.MIN_HISTORY_WEIGHT, contract.MAX_HISTORY_WEIGHT
_NUMBERS: Final = {int, float}
_PADDING: Final = contract.PADDING_CANDIDATE_ID


@dataclass(slots=True, kw_only=True)
class Queries:
    """One row for each answer; a column is `None` if the call does not have it.

    Attributes:
        users: User id of each row; empty without a user.
        history: Candidate ids, oldest first.
        ages: Seconds for each event of `history`; `UNKNOWN_AGE` for some.
        weights: Positive number for each event of `history`.
        features: `name=value` texts.
        given: The features that `features` are the texts of; several values in a list.
        exclude: Candidate ids to leave out.
    """

    users: list[str]
    history: list[list[str]] | None = None
    ages: list[list[float]] | None = None
    weights: list[list[float]] | None = None
    features: list[list[str]] | None = None
    given: list[dict[str, Any]] | None = None
    exclude: list[list[str]] | None = None

    @property
    def only_users(self) -> bool:
        """Whether the signatures without history and features answer these."""
        return self.history is None and self.features is None

    def take(self, rows: slice | Sequence[int]) -> "Queries":
        """Return some of the rows."""

        def some(column: list[T]) -> list[T]:
            return column[rows] if isinstance(rows, slice) else [column[row] for row in rows]

        columns = {name: getattr(self, name) for name in self.__slots__}
        return Queries(
            **{name: some(column) for name, column in columns.items() if column is not None}
        )

    def parts(self, size: int) -> "list[Queries]":
        """Return the rows in parts of at most `size`."""
        total = len(self.users)
        if total <= size:
            return [self]
        return [self.take(slice(start, start + size)) for start in range(0, total, size)]

    def identity(self, row: int) -> str:
        """Return what a split assigns a row by: the user id, or else history and features."""
        if self.users[row] or self.only_users:
            return self.users[row]
        history = self.history[row] if self.history else []
        return "\n".join([*history, "", *(self.features[row] if self.features else [])])

    def inputs(self) -> dict[str, Input | None]:
        """Return the inputs with a row for each query; `None` for a missing column."""
        width = max(map(len, self.history)) if self.history else 0
        return {
            contract.USER_ID: Input(self.users, "DT_STRING"),
            contract.HISTORY: _strings(self.history),
            contract.HISTORY_AGE: _floats(self.ages, width, contract.UNKNOWN_AGE),
            contract.HISTORY_WEIGHT: _floats(self.weights, width, 0.0),
            contract.FEATURES: _strings(self.features),
            contract.EXCLUDE: _strings(self.exclude),
        }


def _strings(rows: list[list[str]] | None) -> Input | None:
    if rows is None:
        return None
    width = max(map(len, rows)) or 1
    return Input([row + [_PADDING] * (width - len(row)) for row in rows], "DT_STRING")


def _floats(rows: list[list[float]] | None, width: int, padding: float) -> Input | None:
    if rows is None or not width:
        return None
    return Input([row + [padding] * (width - len(row)) for row in rows], "DT_FLOAT")


def inputs_for(
    asked: Mapping[str, Input | None],
    size: int,
    *,
    signature: str,
    known: frozenset[str],
    target: Target,
) -> dict[str, Input]:
    """Return a value for every input of a signature, neutral if not asked for.

    Args:
        asked: Values by name; `None` for unused inputs.
        size: Number of queries.
        signature: Signature name.
        known: Inputs of the signature.
        target: The servable.

    Raises:
        Unsupported: The signature lacks an input that is asked for.
    """
    inputs = {}
    for name, value in asked.items():
        if value is not None and name not in known:
            raise errors.Unsupported(
                f"signature {signature!r} of {target} has no input {name!r}; "
                f"it has: {', '.join(sorted(known))}; export the model again"
            )
        if name in known:
            inputs[name] = _neutral(name, size) if value is None else value
    return inputs


def _neutral(name: str, size: int) -> Input:
    if name in (contract.HISTORY, contract.FEATURES, contract.EXCLUDE):
        return Input([[_PADDING]] * size, "DT_STRING")
    if name in (contract.HISTORY_AGE, contract.HISTORY_WEIGHT):
        return Input([[]] * size, "DT_FLOAT")
    if name in (contract.EXCLUDE_SEEN, contract.EXCLUDE_HISTORY):
        return Input(False, "DT_BOOL")
    return Input([], "DT_STRING")


# --- checks ----------------------------------------------------------------------------


def checked_queries(
    user_ids: Sequence[str] | None,
    *,
    history: Sequence[Sequence[str]] | None = None,
    history_ages: Sequence[Sequence[float | None]] | None = None,
    history_weights: Sequence[Sequence[float]] | None = None,
    features: Sequence[Features] | None = None,
) -> Queries:
    """Return the queries of a call; without user ids, as many nobodies as there are rows.

    Raises:
        ValueError: A value has the wrong type or size, or the numbers of rows differ.
    """
    if history is None:
        for name, values in (("history_ages", history_ages), ("history_weights", history_weights)):
            if values is not None:
                raise ValueError(f"{name} needs history; pass the events that it belongs to")
    if history is None and features is None:
        if user_ids is None:
            raise ValueError(
                "user_ids takes a list of strings, got None; only a call with history or "
                "features can do without"
            )
        return Queries(users=checked_ids("user_ids", user_ids))
    queries = Queries(users=[])
    if history is not None:
        queries.history = _rows("history", history, "candidate ids", _history_row)
    if features is not None:
        queries.given, queries.features = _features(features)
    rows = queries.history if queries.history is not None else queries.features or []
    first = "features" if history is None else "history"
    if not rows:
        raise ValueError(f"{first} is empty; give at least one row")
    queries.users = [""] * len(rows) if user_ids is None else checked_ids("user_ids", user_ids)
    size = len(queries.users)
    _check_size(first, len(rows), size)
    if queries.features is not None:
        _check_size("features", len(queries.features), size)
    if queries.history is not None:
        events = queries.history
        queries.ages = _per_event("history_ages", history_ages, events, _age_row)
        queries.weights = _per_event("history_weights", history_weights, events, _weight_row)
    return queries


def _check_size(name: str, rows: int, size: int) -> None:
    if rows != size:
        empty = "{}" if name == "features" else "[]"
        raise ValueError(
            f"{name} has {rows} rows for {size} users; give one for each user, {empty} for none"
        )


def _rows(
    name: str, values: Any, what: str, checked: Callable[[str, Any], list[T]]
) -> list[list[T]]:
    """Return one checked row for each user."""
    takes = f"{name} takes one list of {what} for each user"
    if isinstance(values, Mapping):
        raise ValueError(f"{takes}, got {shown(values)}; use [{name}[user] for user in user_ids]")
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        remedy = f"; use [[{values!r}]]" if isinstance(values, str) else ""
        raise ValueError(f"{takes}, got {shown(values)}{remedy}")
    rows = list(values)
    flat = [_is_scalar(row) for row in rows]
    if any(flat):
        remedy = f"; for one user use [{shown(rows)}]" if all(flat) else ""
        raise ValueError(f"{takes}, got {shown(rows[flat.index(True)])} in it{remedy}")
    for row in rows:
        if isinstance(row, Set):
            raise ValueError(f"{takes}, got {shown(row)} in it; a set has no order")
    return [checked(f"{name}[{index}]", row) for index, row in enumerate(rows)]


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable)


def _history_row(name: str, row: Any) -> list[str]:
    ids = texts(name, row)
    if "" in ids:
        raise ValueError(f"{name} takes candidate ids, got ''; leave it out")
    return ids


def _per_event(
    name: str,
    values: Any,
    history: list[list[str]],
    checked: Callable[[str, Any], list[float]],
) -> list[list[float]] | None:
    """Return one number for each event of the history."""
    if values is None:
        return None
    rows = _rows(name, values, "numbers", checked)
    if len(rows) != len(history):
        raise ValueError(f"{name} has {len(rows)} rows, history has {len(history)}")
    for index, (row, events) in enumerate(zip(rows, history, strict=True)):
        if len(row) != len(events):
            unknown = ", None for an unknown one" if name == "history_ages" else ""
            raise ValueError(
                f"{name}[{index}] has {len(row)} numbers for the {len(events)} events of "
                f"history[{index}]; give one for each event{unknown}"
            )
    return rows


def _age_row(name: str, row: Any) -> list[float]:
    ages = row.tolist() if hasattr(row, "tolist") else list(row)
    if not ages or ({*map(type, ages)} <= _NUMBERS and min(ages) >= 0 and sum(ages) <= _MAX_AGE):
        return list(map(float, ages))  # TensorFlow Serving refuses whole numbers above 2^24
    return [_age(f"{name}[{index}]", age) for index, age in enumerate(ages)]


def _age(name: str, value: Any) -> float:
    if value is None:
        return contract.UNKNOWN_AGE
    if isinstance(value, Real) and math.isnan(value):
        raise ValueError(
            f"{name} must be a number of seconds, got nan; for an unknown age use None"
        )
    age = float(number(name, value))
    if not 0 <= age <= _MAX_AGE:
        raise ValueError(
            f"{name} must be in 0 to {_MAX_AGE:g} seconds, got {shown(value)}; an age is the time "
            "from the event to the request"
        )
    return age


def _weight_row(name: str, row: Any) -> list[float]:
    weights = row.tolist() if hasattr(row, "tolist") else list(row)
    fits = {*map(type, weights)} <= _NUMBERS
    if not weights or (fits and min(weights) >= _MIN_WEIGHT and sum(weights) <= _MAX_WEIGHT):
        return list(map(float, weights))
    return [_weight(f"{name}[{index}]", weight) for index, weight in enumerate(weights)]


def _weight(name: str, value: Any) -> float:
    weight = float(number(name, value))
    if not _MIN_WEIGHT <= weight <= _MAX_WEIGHT:
        raise ValueError(
            f"{name} must be in {_MIN_WEIGHT:g} to {_MAX_WEIGHT:g}, got {shown(value)}"
        )
    return weight


def _features(values: Any) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Return the features of each row, as they are and as `name=value` texts."""
    takes = "features takes one mapping for each user, such as {'device': 'mobile'}"
    if isinstance(values, Mapping):
        raise ValueError(f"{takes}, got {shown(values)}; for one user use [{shown(values)}]")
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{takes}, got {shown(values)}")
    rows = [_feature_row(f"features[{index}]", row) for index, row in enumerate(values)]
    return [given for given, _ in rows], [pairs for _, pairs in rows]


def _feature_row(name: str, row: Any) -> tuple[dict[str, Any], list[str]]:
    given, pairs = {}, []
    for feature, value in mapping(name, row, example="{'device': 'mobile'}").items():
        feature = text(f"a feature's name in {name}", feature)
        if "=" in feature:
            raise ValueError(f"a feature's name in {name} must be without '=', got {feature!r}")
        single = isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable)
        items = [value] if single else list(value)
        given[feature] = value if single else items
        where = f"{feature!r} of {name}"
        pairs += [f"{feature}={feature_text(where, item)}" for item in items]
    return given, pairs


def feature_text(name: str, value: Any) -> str:
    """Return the value of a feature as a string.

    Raises:
        ValueError: It is neither a string nor a finite number.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return str(value)
    if isinstance(value, Real) and math.isfinite(value):
        return repr(float(value))
    remedy = "" if isinstance(value, Real) and math.isinf(value) else text_remedy(value)
    raise ValueError(f"{name} takes strings and numbers, got {shown(value)}{remedy}")
