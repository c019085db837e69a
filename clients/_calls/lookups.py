"""Flows that look things up by id: similar, embed and rate."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from shortlist.clients import contract, errors
from shortlist.clients._arguments import shown
from shortlist.clients._calls.call import Call, Flow
from shortlist.clients._calls.queries import checked_queries, inputs_for
from shortlist.clients._calls.rankings import (
    checked_ids,
    checked_k,
    matrix,
    rankings,
    vector,
    versions,
)
from shortlist.clients._codecs.requests import Input, Outputs, PredictRequest
from shortlist.clients.types import Embedding, Features, Rating, Similar

__all__ = ["embed", "rate", "similar"]

R = TypeVar("R")


def _batched(
    call: Call,
    size: int,
    request: Callable[[slice], PredictRequest],
    read: Callable[[slice, Outputs], list[R]],
) -> Flow[list[R]]:
    step = call.caller.limits.batch_size
    batches = [slice(start, start + step) for start in range(0, size, step)]
    replies = yield from call.send_all([request(batch) for batch in batches])
    return [
        row for batch, reply in zip(batches, replies, strict=True) for row in read(batch, reply)
    ]


def similar(call: Call, candidate_ids: Sequence[str], *, k: int) -> Flow[list[Similar]]:
    """Return the candidates most similar to each candidate, in order."""
    target = call.target
    queries = checked_ids("candidate_ids", candidate_ids)
    k = checked_k(k)
    # Some servables take k here; for others the export fixed it.
    takes_k = contract.K in (yield from call.inputs_of(contract.SIMILAR))

    def request(batch: slice) -> PredictRequest:
        inputs = {contract.CANDIDATE_ID: Input(queries[batch], "DT_STRING")}
        if takes_k:
            inputs[contract.K] = Input(k, "DT_INT32")
        return PredictRequest(
            target=target, signature=contract.SIMILAR, inputs=inputs, operation="similar"
        )

    def read(batch: slice, reply: Outputs) -> list[Similar]:
        part = queries[batch]
        names, scores = rankings(reply, len(part), k, target)
        known = vector(reply, contract.KNOWN_CANDIDATE, len(part))
        answered = versions(reply, len(part))
        return [
            Similar(
                candidate_id=query,
                candidate_ids=candidate_ids,
                scores=row,
                known_candidate=is_known,
                version=version,
            )
            for query, candidate_ids, row, is_known, version in zip(
                part, names, scores, known, answered, strict=True
            )
        ]

    return (yield from _batched(call, len(queries), request, read))


def embed(
    call: Call,
    user_ids: Sequence[str] | None,
    *,
    history: Sequence[Sequence[str]] | None,
    history_ages: Sequence[Sequence[float | None]] | None,
    history_weights: Sequence[Sequence[float]] | None,
    features: Sequence[Features] | None,
) -> Flow[list[Embedding]]:
    """Return the query tower's embedding of each user, in order."""
    target = call.target
    queries = checked_queries(
        user_ids,
        history=history,
        history_ages=history_ages,
        history_weights=history_weights,
        features=features,
    )
    signature, known = contract.EMBED, frozenset([contract.USER_ID])
    if not queries.only_users:
        signature = contract.EMBED_BY_QUERY
        known = yield from call.inputs_of(signature)

    def request(batch: slice) -> PredictRequest:
        part = queries.take(batch)
        size = len(part.users)
        return PredictRequest(
            target=target,
            signature=signature,
            inputs=inputs_for(part.inputs(), size, signature=signature, known=known, target=target),
            only_output=contract.QUERY_EMBEDDING,
            operation="embed",
        )

    def read(batch: slice, reply: Outputs) -> list[Embedding]:
        part = queries.users[batch]
        vectors = matrix(reply, contract.QUERY_EMBEDDING, target)
        if vectors.shape[0] != len(part):
            raise errors.ProtocolError(f"{target} answered {vectors.shape} to {len(part)} users")
        try:
            numbers = vectors.numbers(vectors.shape[1])
        except (ValueError, TypeError) as exc:
            raise errors.ProtocolError(f"the answer of {target} is unreadable: {exc}") from exc
        known_users = vector(reply, contract.KNOWN_USER, len(part))
        answered = versions(reply, len(part))
        known_history = vector(reply, contract.KNOWN_HISTORY, len(part))
        known_features = vector(reply, contract.KNOWN_FEATURES, len(part))
        return [
            Embedding(
                user_id=user,
                values=numbers[index],
                known_user=known_users[index],
                version=answered[index],
                known_history=known_history[index],
                known_features=known_features[index],
            )
            for index, user in enumerate(part)
        ]

    return (yield from _batched(call, len(queries.users), request, read))


def rate(call: Call, pairs: Sequence[tuple[str, str]]) -> Flow[list[Rating]]:
    """Return the predicted rating of each `(user_id, candidate_id)` pair, in order."""
    target = call.target
    if not isinstance(pairs, Iterable):
        raise ValueError(f"pairs takes a list of (user_id, candidate_id) pairs, got {shown(pairs)}")
    pairs = list(pairs)
    for pair in pairs:
        if isinstance(pair, str | bytes) or not hasattr(pair, "__len__") or len(pair) != 2:
            raise ValueError(
                f"pairs takes a list of (user_id, candidate_id) pairs, got {shown(pair)} in it"
            )
    users = checked_ids("user_ids", [pair[0] for pair in pairs])
    candidates = checked_ids("candidate_ids", [pair[1] for pair in pairs])

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
        ratings = vector(reply, contract.RATING, len(part))
        answered = versions(reply, len(part))
        if None in ratings:
            raise errors.ProtocolError(f"{target} answered without {contract.RATING!r}")
        return [
            Rating(user_id=user, candidate_id=candidate, rating=value, version=version)
            for user, candidate, value, version in zip(
                part, candidates[batch], ratings, answered, strict=True
            )
        ]

    return (yield from _batched(call, len(users), request, read))
