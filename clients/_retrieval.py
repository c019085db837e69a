"""Flows of the retrieval calls: which signature they use and how its rows are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from clients import contract, errors
from clients._flows import Flow, Many, SignatureCache
from clients._requests import Input, Outputs, PredictRequest, Target
from clients._tensors import Tensor
from clients.types import Embedding, Filter, Rating, Retrieval, Similar

__all__ = ["Servables", "embed", "rate", "retrieve", "similar"]

Exclude = Sequence[str] | Mapping[str, Sequence[str]]
R = TypeVar("R")


class Servables:
    """What a client remembers of the servables it has met."""

    def __init__(self) -> None:
        self.signatures = SignatureCache()
        self.widths: dict[Target, int] = {}  # K of SERVING_DEFAULT


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


def retrieve(
    user_ids: Sequence[str],
    *,
    k: int,
    exclude: Exclude | None,
    exclude_seen: bool,
    filter: Filter | None,  # noqa: A002 - the word of the public interface
    target: Target,
    servables: Servables,
    batch_size: int,
) -> Flow[list[Retrieval]]:
    """Candidates for each user, in the order of the users."""
    users = ids("user_ids", user_ids)
    check_k(k)
    excluded = _excluded(users, exclude)
    special = excluded is not None or exclude_seen or filter is not None
    batches = [slice(i, i + batch_size) for i in range(0, len(users), batch_size)]
    if not special and k <= servables.widths.get(target, k):
        requests = [_plain(users[batch], target) for batch in batches]
        replies = yield from _all(requests)
        width = max(_matrix(reply, contract.CANDIDATE_IDS, target).shape[1] for reply in replies)
        servables.widths[target] = width
        if k <= width:
            return _retrievals(users, batches, replies, k, target)
    inputs = yield from _signature_inputs(contract.RETRIEVE, target, servables)
    options = _options(k, exclude_seen, filter)
    requests = [
        _retrieve_request(users[batch], excluded and excluded[batch], options, inputs, target)
        for batch in batches
    ]
    replies = yield from _all(requests)
    return _retrievals(users, batches, replies, k, target)


def _excluded(users: list[str], exclude: Exclude | None) -> list[list[str]] | None:
    """Excluded candidate ids of each user; None where nothing is excluded."""
    if not exclude:
        return None
    if isinstance(exclude, str):
        raise ValueError(f"exclude takes a list of candidate ids; use [{exclude!r}]")
    if not isinstance(exclude, Mapping):
        every = ids("exclude", exclude)
        return [every] * len(users)
    rows = [list(exclude.get(user, ())) for user in users]
    for row in rows:
        if row:
            ids("exclude", row)
    return rows


def _plain(users: list[str], target: Target) -> PredictRequest:
    return PredictRequest(
        target=target,
        signature=contract.SERVING_DEFAULT,
        inputs={contract.USER_ID: Input(users, "DT_STRING")},
        operation="retrieve",
    )


def _options(k: int, exclude_seen: bool, filter_: Filter | None) -> dict[str, Input | None]:
    """Inputs of RETRIEVE that are the same for every batch; None: not asked for."""
    chosen = filter_ or Filter()

    def pairs(values: Mapping[str, Sequence[str]]) -> Input | None:
        found = [f"{name}={value}" for name, many in values.items() for value in many]
        return Input(found, "DT_STRING") if found else None

    def bounds(values: Mapping[str, float]) -> Input | None:
        found = [f"{name}={value!r}" for name, value in values.items()]
        return Input(found, "DT_STRING") if found else None

    return {
        contract.K: Input(k, "DT_INT32"),
        contract.EXCLUDE_SEEN: Input(True, "DT_BOOL") if exclude_seen else None,
        contract.FILTER_ANY: pairs(chosen.any),
        contract.FILTER_ALL: pairs(chosen.all),
        contract.FILTER_MIN: bounds(chosen.min),
        contract.FILTER_MAX: bounds(chosen.max),
    }


def _retrieve_request(
    users: list[str],
    excluded: list[list[str]] | None,
    options: Mapping[str, Input | None],
    known: frozenset[str],
    target: Target,
) -> PredictRequest:
    """A request with every input that the signature has, neutral where nothing is asked."""
    width = max((len(row) for row in excluded), default=0) if excluded else 0
    padded = [row + [""] * (max(width, 1) - len(row)) for row in excluded or [[]] * len(users)]
    given: dict[str, Input | None] = {
        **options,
        contract.EXCLUDE: Input(padded, "DT_STRING") if width else None,
    }
    inputs = {contract.USER_ID: Input(users, "DT_STRING")}
    for name, value in given.items():
        if value is not None and name not in known:
            raise errors.Unsupported(
                f"signature {contract.RETRIEVE!r} of {target} has no input {name!r}; "
                f"it has: {', '.join(sorted(known))}; export the model anew"
            )
        if name in known:
            neutral = {
                contract.EXCLUDE: Input(padded, "DT_STRING"),
                contract.EXCLUDE_SEEN: Input(False, "DT_BOOL"),
            }
            inputs[name] = value or neutral.get(name, Input([], "DT_STRING"))
    return PredictRequest(
        target=target, signature=contract.RETRIEVE, inputs=inputs, operation="retrieve"
    )


def _signature_inputs(name: str, target: Target, servables: Servables) -> Flow[frozenset[str]]:
    """Names of a signature's inputs.

    Raises:
        SignatureNotFound: The servable does not have it, not even when asked anew.
    """
    metadata, fresh = yield from servables.signatures.get(target)
    if name not in metadata.signatures and not fresh:
        servables.signatures.drop(target)
        metadata, fresh = yield from servables.signatures.get(target)
    if name not in metadata.signatures:
        servables.signatures.drop(target)
        raise errors.SignatureNotFound(
            f"{target} has no signature {name!r}, which this call needs; export the model anew, "
            "or ask for less (fewer k, no exclusions, no filter)"
        )
    return frozenset(metadata.signatures[name].inputs)


def _all(requests: Sequence[PredictRequest]) -> Flow[list[Outputs]]:
    """Answers to all of them; the first error, if there is one."""
    if len(requests) == 1:
        return [(yield requests[0])]
    replies = yield Many(requests)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return list(replies)


# --- reading answers ----------------------------------------------------------------


def _matrix(reply: Outputs, name: str, target: Target) -> Tensor:
    tensor = reply.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2:
        shapes = {key: value.shape for key, value in reply.tensors.items()}
        raise errors.ProtocolError(
            f"{target} answered without a matrix {name!r}; its outputs are {shapes}; "
            "is it a retrieval model?"
        )
    return tensor


def _vector(reply: Outputs, name: str, size: int) -> list[Any]:
    """An output with one value a row; Nones where an older servable does not have it."""
    tensor = reply.tensors.get(name)
    if tensor is None:
        return [None] * size
    values = tensor.value()
    if tensor.shape != (size,):
        raise errors.ProtocolError(f"output {name!r} has shape {tensor.shape}, not ({size},)")
    found: list[Any] = values
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _versions(reply: Outputs, size: int) -> list[int | None]:
    """The version that answered, as the transport tells it or else the servable."""
    if reply.version is not None:
        return [reply.version] * size
    return _vector(reply, contract.SERVABLE_VERSION, size)


def _rankings(
    reply: Outputs, size: int, k: int, target: Target
) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Ids and scores of each row, cut to `k` and without the padding at the end."""
    names = _matrix(reply, contract.CANDIDATE_IDS, target)
    scores = _matrix(reply, contract.SCORES, target)
    if names.shape != scores.shape or names.shape[0] != size:
        raise errors.ProtocolError(
            f"{target} answered {names.shape} candidate ids and {scores.shape} scores "
            f"to {size} queries"
        )
    found = []
    try:
        for index in range(size):
            row = scores.row(index, k)
            while row and (row[-1] == contract.PADDING_SCORE or math.isnan(row[-1])):
                row.pop()
            texts = names.row(index, len(row))
            found.append((tuple(map(_text, texts)), tuple(row)))
    except (ValueError, TypeError) as exc:
        raise errors.ProtocolError(f"the answer of {target} is unreadable: {exc}") from exc
    return found


def _retrievals(
    users: list[str], batches: list[slice], replies: list[Outputs], k: int, target: Target
) -> list[Retrieval]:
    found = []
    for batch, reply in zip(batches, replies, strict=True):
        part = users[batch]
        rows = _rankings(reply, len(part), k, target)
        known = _vector(reply, contract.KNOWN_USER, len(part))
        versions = _versions(reply, len(part))
        found += [
            Retrieval(
                user_id=user,
                candidate_ids=row[0],
                scores=row[1],
                known_user=is_known,
                version=version,
                label=target.label,
            )
            for user, row, is_known, version in zip(part, rows, known, versions, strict=True)
        ]
    return found


def _batched(
    request: Callable[[slice], PredictRequest],
    read: Callable[[slice, Outputs], list[R]],
    size: int,
    batch_size: int,
) -> Flow[list[R]]:
    batches = [slice(i, min(i + batch_size, size)) for i in range(0, size, batch_size)]
    replies = yield from _all([request(batch) for batch in batches])
    return [
        row for batch, reply in zip(batches, replies, strict=True) for row in read(batch, reply)
    ]


def similar(
    candidate_ids: Sequence[str], *, k: int, target: Target, batch_size: int
) -> Flow[list[Similar]]:
    """Candidates like each candidate, in their order."""
    queries = ids("candidate_ids", candidate_ids)
    check_k(k)

    def request(batch: slice) -> PredictRequest:
        return PredictRequest(
            target=target,
            signature=contract.SIMILAR,
            inputs={
                contract.CANDIDATE_ID: Input(queries[batch], "DT_STRING"),
                contract.K: Input(k, "DT_INT32"),
            },
            operation="similar",
        )

    def read(batch: slice, reply: Outputs) -> list[Similar]:
        part = queries[batch]
        rows = _rankings(reply, len(part), k, target)
        known = _vector(reply, contract.KNOWN_CANDIDATE, len(part))
        versions = _versions(reply, len(part))
        return [
            Similar(
                candidate_id=query,
                candidate_ids=row[0],
                scores=row[1],
                known_candidate=is_known,
                version=version,
            )
            for query, row, is_known, version in zip(part, rows, known, versions, strict=True)
        ]

    return (yield from _batched(request, read, len(queries), batch_size))


def embed(user_ids: Sequence[str], *, target: Target, batch_size: int) -> Flow[list[Embedding]]:
    """The query tower's vector of each user, in their order."""
    users = ids("user_ids", user_ids)

    def request(batch: slice) -> PredictRequest:
        return PredictRequest(
            target=target,
            signature=contract.EMBED,
            inputs={contract.USER_ID: Input(users[batch], "DT_STRING")},
            only_output=contract.QUERY_EMBEDDING,
            operation="embed",
        )

    def read(batch: slice, reply: Outputs) -> list[Embedding]:
        part = users[batch]
        vectors = _matrix(reply, contract.QUERY_EMBEDDING, target)
        if vectors.shape[0] != len(part):
            raise errors.ProtocolError(f"{target} answered {vectors.shape} to {len(part)} users")
        known = _vector(reply, contract.KNOWN_USER, len(part))
        versions = _versions(reply, len(part))
        return [
            Embedding(
                user_id=user,
                values=tuple(vectors.row(index, vectors.shape[1])),
                known_user=known[index],
                version=versions[index],
            )
            for index, user in enumerate(part)
        ]

    return (yield from _batched(request, read, len(users), batch_size))


def rate(
    pairs: Sequence[tuple[str, str]], *, target: Target, batch_size: int
) -> Flow[list[Rating]]:
    """The predicted rating of each `(user_id, candidate_id)`, in their order."""
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"rate takes (user_id, candidate_id) pairs, got {pair!r}")
    users = ids("user_ids", [pair[0] for pair in pairs])
    candidates = ids("candidate_ids", [pair[1] for pair in pairs])

    def request(batch: slice) -> PredictRequest:
        return PredictRequest(
            target=target,
            signature=contract.RATE,
            inputs={
                contract.USER_ID: Input(users[batch], "DT_STRING"),
                contract.CANDIDATE_ID: Input(candidates[batch], "DT_STRING"),
            },
            only_output=contract.RATING,
            operation="rate",
        )

    def read(batch: slice, reply: Outputs) -> list[Rating]:
        part = users[batch]
        ratings = _vector(reply, contract.RATING, len(part))
        versions = _versions(reply, len(part))
        if None in ratings:
            raise errors.ProtocolError(f"{target} answered without {contract.RATING!r}")
        return [
            Rating(user_id=user, candidate_id=candidate, rating=value, version=version)
            for user, candidate, value, version in zip(
                part, candidates[batch], ratings, versions, strict=True
            )
        ]

    return (yield from _batched(request, read, len(users), batch_size))
