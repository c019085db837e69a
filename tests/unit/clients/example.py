"""A user's module, checked by `mypy --strict` and run by `test_public.py`."""

import asyncio

from shortlist.clients import (
    AsyncGrpcClient,
    CallEvent,
    Filter,
    GrpcClient,
    Limits,
    RestClient,
    Retrieval,
    RetrievalClient,
    RetryPolicy,
    Split,
    Tls,
)
from shortlist.clients.errors import Overloaded, ServableNotFound, ServingError


def recommend(client: RetrievalClient, user_id: str) -> list[str]:
    """Return candidates, over either transport."""
    try:
        (retrieval,) = client.retrieve([user_id], k=5, exclude_seen=True)
    except ServableNotFound:
        return []
    return [candidate_id for candidate_id, score in retrieval if score > 0]


def show(event: CallEvent) -> str:
    return f"{event.operation} {event.model} {event.seconds:.3f} s"


def both(grpc_address: str, rest_address: str) -> tuple[list[str], list[str]]:
    seen: list[str] = []
    with (
        GrpcClient(grpc_address, hooks=[lambda event: seen.append(show(event))]) as over_grpc,
        RestClient(rest_address, retry=RetryPolicy(max_attempts=2)) as over_rest,
    ):
        first: list[str] = recommend(over_grpc, "42")
        second: list[str] = recommend(over_rest, "42")
    return first, second


def canary(client: RetrievalClient, users: list[str]) -> dict[str, int | None]:
    split = Split({"stable": 0.95, "canary": 0.05})
    retrievals: list[Retrieval] = client.retrieve(users, label=split)
    return {retrieval.user_id: retrieval.version for retrieval in retrievals}


def comedies(client: RetrievalClient) -> float:
    conditions = Filter(any={"genre": ["even"]}, min={"year": 1995})
    best: tuple[str, float] = client.retrieve(["42"], filter=conditions)[0][0]
    return best[1]


def session(client: RetrievalClient, events: list[tuple[str, float]], device: str) -> int | None:
    """Return how many events of a user without an id the version knows."""
    history = [[candidate_id for candidate_id, _ in events]]
    ages = [[age for _, age in events]]
    features = [{"device": device}]
    (retrieval,) = client.retrieve(history=history, history_ages=ages, features=features)
    assert not set(history[0]) & set(retrieval.candidate_ids)
    return retrieval.known_history


async def concurrently(address: str, users: list[str]) -> list[tuple[str, ...]]:
    async with AsyncGrpcClient(address, timeout=10, limits=Limits(max_in_flight=64)) as client:
        answers = await asyncio.gather(*(client.retrieve([user], k=3) for user in users))
    return [retrieval.candidate_ids for (retrieval,) in answers]


def secured(address: str, token: str, ca: str) -> GrpcClient:
    return GrpcClient(address, tls=Tls(ca=ca), headers=lambda: {"authorization": f"Bearer {token}"})


def half(client: RetrievalClient, numbers: list[float]) -> list[float]:
    try:
        result: list[float] = client.predict({"x": numbers}, signature="half_plus_two")["y"]
    except Overloaded:
        return []
    except ServingError as error:
        raise RuntimeError(error.received) from error
    return result
