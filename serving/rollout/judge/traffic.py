"""Pairs of answers, from replayed queries or from events that applications record."""

import json
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shortlist.clients import GrpcClient, RetryPolicy, ServingError, ShardedClient
from shortlist.clients.connection import PLAIN, Security
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.server_config import STABLE
from shortlist.serving.rollout.judge.measures import Pair, Side
from shortlist.serving.rollout.state import CANARY

__all__ = ["read_users", "recorded_pairs", "replayed_pairs"]


def read_users(path: Path) -> list[str]:
    """Return the user ids in a file, one per line.

    Raises:
        RepositoryError: The file cannot be read or is empty.
    """
    try:
        users = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"cannot read user ids from {path}: {exc}") from exc
    users = [user for user in users if user]
    if not users:
        raise RepositoryError(
            f"{path} holds no user ids; write one per line, or name a request log"
        )
    return users


def replayed_pairs(
    addresses: Sequence[str],
    name: str,
    queries: Sequence[Mapping[str, Any]],
    *,
    rate: float,
    timeout: float,
    security: Security = PLAIN,
    shards: Sequence[Sequence[str]] = (),
) -> Iterator[Pair]:
    """Yield answers of both labels for the same queries, indefinitely, on all servers in turn.

    Args:
        addresses: gRPC addresses.
        name: Model name.
        queries: Arguments of the clients' `retrieve` for one user, taken in random order.
        rate: Pairs per second.
        timeout: Timeout of one request in seconds.
        security: TLS, headers and proxies.
        shards: gRPC addresses of each shard, if the model is sharded.
    """
    chance = random.Random()
    # No retries: the measurement includes what a user would wait for.
    once = RetryPolicy(max_attempts=1)
    each = [
        GrpcClient(
            address, model=name, timeout=timeout, retry=once, **security.unlogged()._asdict()
        )
        for address in shards or addresses
    ]
    clients: Sequence[GrpcClient | ShardedClient] = each
    if shards:
        clients = [ShardedClient(each, model=name, timeout=timeout)]
    try:
        for client in clients:  # neither version should pay for opening the connection
            for label in (STABLE, CANARY):
                _ask(client, queries[0], label)
        due = time.monotonic()
        number = 0
        while True:
            client = clients[number % len(clients)]
            query = chance.choice(queries)
            # The order changes, so that neither always gets a warm cache.
            labels = (STABLE, CANARY) if chance.random() < 0.5 else (CANARY, STABLE)
            sides = {label: _ask(client, query, label) for label in labels}
            yield Pair(stable=sides[STABLE], canary=sides[CANARY])
            number += 1
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))
    finally:
        for client in clients:
            client.close()


def _ask(client: GrpcClient | ShardedClient, query: Mapping[str, Any], label: str) -> Side:
    started = time.perf_counter()
    try:
        (answer,) = client.retrieve(**query, label=label)
    except (ServingError, ValueError) as exc:
        return Side(error=str(exc), seconds=time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return Side(error=None, seconds=seconds, candidate_ids=answer.candidate_ids)


def recorded_pairs(path: Path, name: str, *, poll_interval: float = 0.2) -> Iterator[Pair | None]:
    """Yield pairs from new events of real traffic in a log of `clients.EventLog`.

    The n-th event of one label is paired with the n-th of the other. Events written before
    are ignored.

    Args:
        path: The log; may not exist yet.
        name: Model name.
        poll_interval: Interval between two reads in seconds.

    Yields:
        Pairs; `None` if there are no new events.
    """
    waiting: dict[str, deque[Side]] = {STABLE: deque(), CANARY: deque()}
    position = path.stat().st_size if path.exists() else 0
    rest = b""
    while True:
        new = b""
        if path.exists():
            with path.open("rb") as stream:
                stream.seek(position)
                new = stream.read()
        position += len(new)
        *lines, rest = (rest + new).split(b"\n")
        for line in lines:
            event = _event(line, name)
            if event is not None:
                waiting[event[0]].append(event[1])
        while waiting[STABLE] and waiting[CANARY]:
            yield Pair(stable=waiting[STABLE].popleft(), canary=waiting[CANARY].popleft())
        if not new:
            yield None
            time.sleep(poll_interval)


def _event(line: bytes, name: str) -> tuple[str, Side] | None:
    try:
        event = json.loads(line)
        label, status = event["label"], event["status"]
        seconds = float(event["seconds"])
    except (ValueError, KeyError, TypeError):
        return None
    if event.get("model") != name or label not in (STABLE, CANARY):
        return None
    return label, Side(error=None if status == "OK" else str(status), seconds=seconds)
