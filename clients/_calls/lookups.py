"""Flows that look things up by id: similar, embed and rate."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from shortlist.clients import contract, errors
from shortlist.clients._arguments import shown
from shortlist.clients._calls.call import Call, Flow, may_be_unfit
from shortlist.clients._calls.interfaces import Way, Ways, missing
from shortlist.clients._calls.queries import Queries, checked_queries
from shortlist.clients._calls.rankings import (
    checked_ids,
    checked_k,
    matrix,
    not_a_number,
    rankings,
    surely_finite,
    vector,
    versions,
)
from shortlist.clients._codecs.requests import Input, MetadataRequest, Outputs, PredictRequest
from shortlist.clients.interface import RetrievalInterface
from shortlist.clients.types import (
    Embedding,
    Features,
    Metadata,
    Rating,
    Signature,
    Similar,
    TensorSpec,
)

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
    queries, k = checked_ids("candidate_ids", candidate_ids), checked_k(k)
    return call.informed(partial(_similar, call, queries, k))


def _similar(call: Call, queries: list[str], k: int, metadata: Metadata) -> Flow[list[Similar]]:
    target = call.target
    if contract.SIMILAR not in metadata.signatures:
        raise missing(target, metadata.signatures, contract.SIMILAR)
    # Some servables take k here; for others the export fixed it.
    takes_k = contract.K in metadata.signatures[contract.SIMILAR].inputs

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
        known = vector(reply, contract.KNOWN_CANDIDATE, len(part), bool)
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
    queries = checked_queries(
        user_ids,
        history=history,
        history_ages=history_ages,
        history_weights=history_weights,
        features=features,
    )
    failed = None
    if queries.only_users and call.usual:
        try:
            return (yield from _embeddings(call, queries, _EMBED))
        except errors.ServingError as error:
            if not may_be_unfit(error):
                raise
            failed = error

    def attempt(metadata: Metadata) -> Flow[list[Embedding]]:
        if not metadata.signatures.keys() & {contract.EMBED, contract.EMBED_BY_QUERY}:
            raise missing(call.target, metadata.signatures, contract.EMBED)
        ways = call.ways(metadata)
        if failed is not None and ways.usual:
            raise failed
        way = _way_to_embed(ways, queries)
        return (yield from _embeddings(call, queries, way))

    return (yield from call.informed(attempt, failed=failed))


# EMBED with a user id alone.
_EMBED: Final = Way(
    interface=RetrievalInterface(signature=contract.EMBED),
    spec=Signature(
        inputs={contract.USER_ID: TensorSpec(dtype="DT_STRING", shape=(None,), tensor_name="")},
        outputs={},
        method_name="",
    ),
    options=frozenset(),
)


def _way_to_embed(ways: Ways, queries: Queries) -> Way:
    """Return the way to embed such queries.

    Raises:
        SignatureNotFound: There is none.
    """
    way = ways.to(contract.EMBED)
    if way is None and not queries.only_users:
        way = ways.to(contract.EMBED_BY_QUERY)
    if way is None:
        raise ways.missing(contract.EMBED)
    return ways.by_query(queries, way, contract.EMBED_BY_QUERY)


def _embeddings(call: Call, queries: Queries, way: Way) -> Flow[list[Embedding]]:
    target = call.target

    def request(batch: slice) -> PredictRequest:
        return way.request(
            target,
            queries.take(batch),
            {},
            operation="embed",
            only_output=contract.QUERY_EMBEDDING,
        )

    def read(batch: slice, reply: Outputs) -> list[Embedding]:
        part = queries.users[batch]
        vectors = matrix(reply, contract.QUERY_EMBEDDING, target)
        if vectors.shape[0] != len(part):
            raise errors.ProtocolError(f"{target} answered {vectors.shape} to {len(part)} users")
        try:
            numbers = vectors.numbers(vectors.shape[1])
        except (ValueError, TypeError, OverflowError) as exc:
            raise errors.ProtocolError(f"the answer of {target} is unreadable: {exc}") from exc
        if not surely_finite(numbers):
            for index, row in enumerate(numbers):
                if any(map(math.isnan, row)):
                    raise not_a_number(reply, target, "an embedding", index)
        known_users = vector(reply, contract.KNOWN_USER, len(part), bool)
        answered = versions(reply, len(part))
        known_history = vector(reply, contract.KNOWN_HISTORY, len(part), int)
        known_features = vector(reply, contract.KNOWN_FEATURES, len(part), int)
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
        ratings = vector(reply, contract.RATING, len(part), float)
        answered = versions(reply, len(part))
        if None in ratings:
            raise errors.ProtocolError(f"{target} answered without {contract.RATING!r}")
        if not surely_finite([ratings]):
            for index, rating in enumerate(ratings):
                if math.isnan(rating):
                    raise not_a_number(reply, target, "the rating", index)
        return [
            Rating(user_id=user, candidate_id=candidate, rating=value, version=version)
            for user, candidate, value, version in zip(
                part, candidates[batch], ratings, answered, strict=True
            )
        ]

    try:
        return (yield from _batched(call, len(users), request, read))
    except errors.SignatureNotFound as error:
        metadata = yield from call.ask(MetadataRequest(target=target))
        if not isinstance(metadata, Metadata):
            raise
        raise missing(target, metadata.signatures, contract.RATE) from error
