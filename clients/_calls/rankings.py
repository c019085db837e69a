"""Checks of ids and `k`, and readers of rows in answers."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from shortlist.clients import contract, errors
from shortlist.clients._arguments import texts, whole
from shortlist.clients._codecs.requests import Outputs, Target
from shortlist.clients._codecs.tensors import Tensor
from shortlist.clients.interface import RetrievalInterface

__all__ = [
    "checked_ids",
    "checked_k",
    "matrix",
    "not_a_number",
    "rankings",
    "surely_finite",
    "vector",
    "versions",
]


def checked_ids(name: str, values: Sequence[str]) -> list[str]:
    """Return the ids as a list.

    Raises:
        ValueError: `values` is a single string, empty, or contains a value that is not a string.
    """
    ids = texts(name, values)
    if not ids:
        raise ValueError(f"{name} is empty; give at least one id")
    return ids


def checked_k(k: int) -> int:
    """Return `k` as an int; raise `ValueError` unless it is a positive integer."""
    return whole("k", k, least=1)


def matrix(reply: Outputs, name: str, target: Target) -> Tensor:
    """Return an output with one row per query.

    Raises:
        ProtocolError: The answer lacks it, or it is not a matrix.
    """
    tensor = reply.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2:
        shapes = {key: value.shape for key, value in reply.tensors.items()}
        raise errors.ProtocolError(
            f"{target} answered without a matrix {name!r}; its outputs are {shapes}; "
            "is it a retrieval model?"
        )
    return tensor


def vector(reply: Outputs, name: str, size: int, kind: type) -> list[Any]:
    """Return an output with one value per row; `None`s if an older servable lacks it.

    Raises:
        ProtocolError: The values are of another number, or not of type `kind`.
    """
    tensor = reply.tensors.get(name)
    if tensor is None:
        return [None] * size
    if tensor.shape != (size,):
        raise errors.ProtocolError(f"output {name!r} has shape {tensor.shape}, not ({size},)")
    try:
        values: list[Any] = tensor.value()
    except ValueError as exc:
        raise errors.ProtocolError(f"output {name!r} is unreadable: {exc}") from exc
    kinds = {*map(type, values)} - {kind}
    if kind is float and kinds == {int}:  # JSON's form of 3.0
        return list(map(float, values))
    if kinds:
        raise errors.ProtocolError(
            f"output {name!r} has values of type {kinds.pop().__name__}, not {kind.__name__}"
        )
    return values


def versions(reply: Outputs, size: int) -> list[int | None]:
    """Return the version that answered each row, according to the transport or the servable."""
    if reply.version is not None:
        return [reply.version] * size
    return vector(reply, contract.SERVABLE_VERSION, size, int)


def rankings(
    reply: Outputs,
    size: int,
    k: int,
    target: Target,
    interface: RetrievalInterface = RetrievalInterface(),  # noqa: B008 - frozen
) -> tuple[list[tuple[str, ...]], list[tuple[float, ...]]]:
    """Return ids and scores of each row, cut to `k`, without the padding at the end.

    Raises:
        ProtocolError: The answer has another form.
        ServerError: A score is NaN.
    """
    names = matrix(reply, interface.ids, target)
    scores = matrix(reply, interface.scores, target)
    if names.shape != scores.shape or names.shape[0] != size:
        raise errors.ProtocolError(
            f"{target} answered {names.shape} candidate ids and {scores.shape} scores "
            f"to {size} queries"
        )
    try:
        texts, numbers = names.texts(k), scores.numbers(k)
    except (ValueError, TypeError, OverflowError) as exc:
        raise errors.ProtocolError(f"the answer of {target} is unreadable: {exc}") from exc
    if not surely_finite(numbers):  # padding, or NaN
        foreign = interface.ids != contract.CANDIDATE_IDS
        for index, row in enumerate(numbers):
            if foreign and row and row[0] == row[0]:
                row = _without_nan(row)  # TFRS' layer for ScaNN pads with NaN
            if any(map(math.isnan, row)):
                raise not_a_number(reply, target, "a score", index)
            numbers[index] = short = _without_padding(row)
            texts[index] = texts[index][: len(short)]
    return texts, numbers


def _without_padding(row: tuple[float, ...]) -> tuple[float, ...]:
    while row and row[-1] == contract.PADDING_SCORE:
        row = row[:-1]
    return row


def _without_nan(row: tuple[float, ...]) -> tuple[float, ...]:
    while math.isnan(row[-1]):
        row = row[:-1]
    return row


def surely_finite(rows: Iterable[Sequence[float]]) -> bool:
    """Return whether all numbers are finite, for the price of a sum; `False` if it overflows."""
    return math.isfinite(sum(chain.from_iterable(rows)))


def not_a_number(reply: Outputs, target: Target, what: str, row: int) -> errors.ServerError:
    """Return the error for a servable that computes NaN."""
    version = "" if reply.version is None else f" (version {reply.version})"
    return errors.ServerError(
        f"{target}{version} answered NaN as {what} of row {row} of the request: its model or index "
        "is broken; roll back to another version, and run `shortlist verify` on this one"
    )
