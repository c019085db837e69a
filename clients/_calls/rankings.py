"""How rows of ids and scores are asked for and read, whatever they rank."""

from collections.abc import Sequence
from typing import Any

from shortlist.clients import contract, errors
from shortlist.clients._calls.flows import Flow, Many
from shortlist.clients._codecs.requests import Outputs, PredictRequest, Target
from shortlist.clients._codecs.tensors import Tensor

__all__ = ["check_k", "ids", "matrix", "rankings", "replies_to", "vector", "versions"]


def ids(name: str, values: Sequence[str]) -> list[str]:
    """A checked list of ids.

    Raises:
        ValueError: It is a single string, is empty, or holds something that is no string.
    """
    if isinstance(values, str):
        raise ValueError(f"{name} takes a list of ids, got the string {values!r}; use [{values!r}]")
    found = list(values)
    if not found:
        raise ValueError(f"{name} is empty; give at least one id")
    for value in found:
        if not isinstance(value, str):
            raise ValueError(f"{name} takes strings, got {value!r}; use str({value!r})")
    return found


def check_k(k: int) -> None:
    """Refuses a `k` that is no positive number.

    Raises:
        ValueError: See above.
    """
    if type(k) is not int or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, got {k!r}")


def replies_to(requests: Sequence[PredictRequest]) -> Flow[list[Outputs]]:
    """Answers to all of them; the first error, if there is one."""
    if len(requests) == 1:
        return [(yield requests[0])]
    replies = yield Many(requests)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return list(replies)


def matrix(reply: Outputs, name: str, target: Target) -> Tensor:
    """An output with one row for each query.

    Raises:
        ProtocolError: There is none of that name.
    """
    tensor = reply.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2:
        shapes = {key: value.shape for key, value in reply.tensors.items()}
        raise errors.ProtocolError(
            f"{target} answered without a matrix {name!r}; its outputs are {shapes}; "
            "is it a retrieval model?"
        )
    return tensor


def vector(reply: Outputs, name: str, size: int) -> list[Any]:
    """An output with one value a row; Nones where an older servable does not have it."""
    tensor = reply.tensors.get(name)
    if tensor is None:
        return [None] * size
    values = tensor.value()
    if tensor.shape != (size,):
        raise errors.ProtocolError(f"output {name!r} has shape {tensor.shape}, not ({size},)")
    found: list[Any] = values
    return found


def versions(reply: Outputs, size: int) -> list[int | None]:
    """The version that answered, as the transport tells it or else the servable."""
    if reply.version is not None:
        return [reply.version] * size
    return vector(reply, contract.SERVABLE_VERSION, size)


def rankings(
    reply: Outputs, size: int, k: int, target: Target
) -> tuple[list[tuple[str, ...]], list[tuple[float, ...]]]:
    """Ids and scores of each row, cut to `k` and without the padding at the end."""
    names = matrix(reply, contract.CANDIDATE_IDS, target)
    scores = matrix(reply, contract.SCORES, target)
    if names.shape != scores.shape or names.shape[0] != size:
        raise errors.ProtocolError(
            f"{target} answered {names.shape} candidate ids and {scores.shape} scores "
            f"to {size} queries"
        )
    try:
        texts, numbers = names.texts(k), scores.numbers(k)
    except (ValueError, TypeError) as exc:
        raise errors.ProtocolError(f"the answer of {target} is unreadable: {exc}") from exc
    for index, row in enumerate(numbers):
        if row and not row[-1] > contract.PADDING_SCORE:  # so is NaN
            numbers[index] = short = _without_padding(row)
            texts[index] = texts[index][: len(short)]
    return texts, numbers


def _without_padding(row: tuple[float, ...]) -> tuple[float, ...]:
    while row and not row[-1] > contract.PADDING_SCORE:
        row = row[:-1]
    return row
