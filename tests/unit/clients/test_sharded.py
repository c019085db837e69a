"""Clients of sharded models: the oracle is one servable with all candidates."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from shortlist.clients import (
    AsyncShardedClient,
    Filter,
    GrpcClient,
    RestClient,
    RetryPolicy,
    ShardedClient,
    Split,
    contract,
)
from shortlist.clients.errors import (
    InvalidRequest,
    LabelNotFound,
    ServableNotFound,
    Unavailable,
)
from shortlist.clients.testing import FakeModel, FakeServer
from shortlist.clients.types import State

COUNT = 3
MODEL = contract.DEFAULT_SERVABLE
ALL = FakeModel().candidates
ONCE = RetryPolicy(max_attempts=1)
USERS = ["anna", "bert"]


def shard(number: int, **options: Any) -> FakeModel:
    """Every third candidate; version 2 is loaded too, and `stable` still points at 1."""
    own = dict(list(ALL.items())[number::COUNT])
    versions = {1: State.AVAILABLE, 2: State.AVAILABLE}
    return FakeModel(candidates=own, versions=versions, labels={"stable": 1}, **options)


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """One server for each shard."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                FakeServer({contract.shard_name(MODEL, number, COUNT): shard(number)})
            )
            for number in range(COUNT)
        ]


class Blocking:
    """`AsyncShardedClient` with the methods of `ShardedClient`."""

    def __init__(self, addresses: Sequence[str], **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncShardedClient.from_addresses(addresses, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def opened(transport: str, servers: Sequence[FakeServer], **options: Any) -> Any:
    if transport == "rest":
        addresses = [server.rest_address for server in servers]
        return ShardedClient.from_addresses(addresses, transport="rest", retry=ONCE, **options)
    addresses = [server.grpc_address for server in servers]
    if transport == "aio":
        return Blocking(addresses, retry=ONCE, **options)
    return ShardedClient.from_addresses(addresses, retry=ONCE, **options)


@pytest.fixture(params=["rest", "grpc", "aio"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(transport: str, servers: list[FakeServer]) -> Iterator[Any]:
    with opened(transport, servers) as client:
        yield client


def best(query: str, k: int, among: Sequence[str] = tuple(ALL)) -> list[tuple[str, float]]:
    return FakeModel().ranking(query, among)[:k]


def test_merged_answers_are_those_of_the_whole_corpus(client: Any) -> None:
    for k in (1, 5, 20, 100):
        for retrieval in client.retrieve(USERS, k=k, version=1):
            assert list(retrieval) == best(retrieval.user_id, k)
            assert (retrieval.version, retrieval.shards_missing) == (1, ())
    (retrieval,) = client.retrieve(["anna"])
    assert list(retrieval) == best("anna", 10)


def test_exclusions_and_filters_hold_in_every_shard(client: Any) -> None:
    gone = [candidate for candidate, _ in best("anna", 4)]
    (retrieval,) = client.retrieve(["anna"], k=8, exclude=gone)
    assert list(retrieval) == best("anna", 12)[4:]
    odd = [candidate for candidate, own in ALL.items() if own["genre"] == "odd"]
    (retrieval,) = client.retrieve(["anna"], k=30, filter=Filter(all={"genre": ["odd"]}))
    assert list(retrieval) == best("anna", 30, odd)
    (retrieval,) = client.retrieve(["anna"], k=3, exclude={"anna": gone, "other": ["c00"]})
    assert list(retrieval) == best("anna", 7)[4:]


def test_histories_count_once_and_similar_merges(client: Any, servers: list[FakeServer]) -> None:
    (retrieval,) = client.retrieve(history=[["c00", "c01", "c02"]], k=5)
    assert len(retrieval) == 5
    assert servers[2].calls[-1].history == [["c00", "c01", "c02"]]
    (similar,) = client.similar(["c00"], k=6)
    pairs = [pair for pair in best("c00", 28) if pair[0] != "c00"]
    assert [name for name, _ in similar if name != "c00"][:5] == [name for name, _ in pairs[:5]]


def test_equal_scores_keep_the_order_of_the_shards(client: Any, servers: list[FakeServer]) -> None:
    for number, server in enumerate(servers):
        model = server.models[contract.shard_name(MODEL, number, COUNT)]
        model.rankings["anna"] = [(f"{number}a", 1.0), (f"{number}b", 0.5)]
    (retrieval,) = client.retrieve(["anna"], k=5)
    assert retrieval.candidate_ids == ("0a", "1a", "2a", "0b", "1b")


def test_a_label_that_moves_in_between_mixes_no_versions(
    client: Any, servers: list[FakeServer]
) -> None:
    servers[1].models[contract.shard_name(MODEL, 1, COUNT)].labels["stable"] = 2
    retrievals = client.retrieve(USERS, k=5, label="stable")
    for retrieval in retrievals:
        assert (retrieval.version, retrieval.label) == (2, "stable")
        assert list(retrieval) == best(retrieval.user_id, 5)
    # Asked again: the two that differed, and no other.
    assert [len([c for c in server.calls if c.operation == "predict"]) for server in servers] == [
        2,
        1,
        2,
    ]


def test_shards_that_lack_the_newest_version_answer_with_an_older_one(
    client: Any, servers: list[FakeServer]
) -> None:
    del servers[2].models[contract.shard_name(MODEL, 2, COUNT)].versions[2]
    (retrieval,) = client.retrieve(["anna"], k=5)
    assert (retrieval.version, list(retrieval)) == (1, best("anna", 5))


def test_a_shard_that_lacks_a_new_label_is_asked_by_number(
    client: Any, servers: list[FakeServer]
) -> None:
    for number in (0, 2):
        servers[number].models[contract.shard_name(MODEL, number, COUNT)].labels["canary"] = 2
    (retrieval,) = client.retrieve(["anna"], k=5, label="canary")
    assert (retrieval.version, list(retrieval)) == (2, best("anna", 5))
    with pytest.raises(LabelNotFound, match="nightly"):
        client.retrieve(["anna"], label="nightly")


def test_each_user_of_a_split_gets_one_version(client: Any, servers: list[FakeServer]) -> None:
    for number, server in enumerate(servers):
        server.models[contract.shard_name(MODEL, number, COUNT)].labels["canary"] = 2
    servers[0].models[contract.shard_name(MODEL, 0, COUNT)].labels["canary"] = 1
    split = Split({"stable": 0.5, "canary": 0.5})
    users = [f"user-{number}" for number in range(20)]
    for retrieval in client.retrieve(users, k=3, label=split):
        assert retrieval.label == split.label_for(retrieval.user_id)
        assert retrieval.version == {"stable": 1, "canary": 2}[retrieval.label]
        assert list(retrieval) == best(retrieval.user_id, 3)


def test_no_version_in_common_is_an_error(client: Any, servers: list[FakeServer]) -> None:
    for number, version in ((0, 1), (1, 2)):
        model = servers[number].models[contract.shard_name(MODEL, number, COUNT)]
        model.versions = {version: State.AVAILABLE}
    with pytest.raises(ServableNotFound, match=r"no version in common .*_0of3: version 1, .*_1of3"):
        client.retrieve(["anna"])


def test_a_shard_that_is_down_is_named(client: Any, servers: list[FakeServer]) -> None:
    servers[1].close()
    with pytest.raises(Unavailable, match=r"shard 1 of 3 \(retrieval_brute_force_1of3\): "):
        client.retrieve(["anna"])
    with pytest.raises(Unavailable, match="shard 1 of 3"):
        client.status()


def test_partial_answers_tell_which_shards_are_missing(
    transport: str, servers: list[FakeServer]
) -> None:
    rest = [name for number, name in enumerate(ALL) if number % COUNT != 1]
    with opened(transport, servers, partial="allow") as client:
        servers[1].close()
        (retrieval,) = client.retrieve(["anna"], k=5, version=1)
        assert (list(retrieval), retrieval.shards_missing) == (best("anna", 5, rest), (1,))
        (similar,) = client.similar(["c00"])
        assert similar.shards_missing == (1,)
    for server in servers:
        server.close()
    with (
        opened(transport, servers, partial="allow") as client,
        pytest.raises(Unavailable, match="shard 0 of 3"),
    ):
        client.retrieve(["anna"])


def test_a_wrong_request_is_an_error_even_if_shards_may_be_missing(
    transport: str, servers: list[FakeServer]
) -> None:
    servers[0].fail("INVALID_ARGUMENT", times=9)
    with (
        opened(transport, servers, partial="allow") as client,
        pytest.raises(InvalidRequest, match="shard 0 of 3"),
    ):
        client.similar(["c00"])


def test_partial_answers_leave_out_shards_of_another_version(
    transport: str, servers: list[FakeServer]
) -> None:
    names = [contract.shard_name(MODEL, number, COUNT) for number in range(COUNT)]
    for server, name, version in zip(servers, names, (2, 1, 2), strict=True):
        server.models[name].versions = {version: State.AVAILABLE}
    with opened(transport, servers, partial="allow") as client:
        (retrieval,) = client.retrieve(["anna"])
    assert (retrieval.version, retrieval.shards_missing) == (2, (1,))


def test_what_every_shard_knows_is_asked_of_one_that_is_up(
    client: Any, servers: list[FakeServer]
) -> None:
    servers[0].close()
    for _ in range(COUNT):
        assert client.embed(["anna"])[0].user_id == "anna"
        assert client.rate([("anna", "c00")])[0].candidate_id == "c00"
        assert client.metadata().model == MODEL
    with pytest.raises(ValueError, match="user_ids"):
        client.embed([])


def test_available_is_what_every_shard_answers(client: Any, servers: list[FakeServer]) -> None:
    assert client.status().available == [2, 1]
    servers[1].models[contract.shard_name(MODEL, 1, COUNT)].versions[2] = State.LOADING
    del servers[2].models[contract.shard_name(MODEL, 2, COUNT)].versions[1]
    status = client.status()
    assert {entry.version: entry.state for entry in status.versions} == {
        1: State.UNKNOWN,
        2: State.LOADING,
    }
    assert (status.model, status.available) == (MODEL, [])
    assert client.wait_until_available(timeout=5.0).model == MODEL


def test_one_server_may_hold_all_shards() -> None:
    models = {contract.shard_name("m", number, COUNT): shard(number) for number in range(COUNT)}
    with FakeServer(models) as server:
        one = ShardedClient.from_addresses([server.grpc_address], shards=COUNT, model="m")
        with one as client:
            assert list(client.retrieve(["anna"], k=7)[0]) == best("anna", 7)
        same = GrpcClient(server.grpc_address)
        with ShardedClient([same] * COUNT) as client:
            assert list(client.retrieve(["anna"], k=7, model="m")[0]) == best("anna", 7)


def test_wrong_arguments_are_refused_before_anything_is_sent(servers: list[FakeServer]) -> None:
    with RestClient(servers[0].rest_address) as one:
        with pytest.raises(ValueError, match="partial must be"):
            ShardedClient([one], partial="maybe")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="number of shards"):
            ShardedClient([])
    with pytest.raises(ValueError, match=r"got 2 addresses; give one, or one for each of 3"):
        ShardedClient.from_addresses(["a:1", "b:1"], shards=3)
    for shards in (0, -1, True, "3"):
        with pytest.raises(ValueError, match="shards must be a whole number of at least 1"):
            ShardedClient.from_addresses(["a:1"], shards=shards)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"takes a list, got 'a:1'; use \['a:1'\]"):
        ShardedClient.from_addresses("a:1")
    with pytest.raises(ValueError, match="transport must be"):
        ShardedClient.from_addresses(["a:1"], transport="http")  # type: ignore[arg-type]
    with opened("grpc", servers) as client:
        for arguments in ({"k": 0}, {"user_ids": "anna"}, {"timeout": -1.0}):
            with pytest.raises(ValueError, match=next(iter(arguments))):
                client.retrieve(**{"user_ids": ["anna"], **arguments})
    assert not any(server.calls for server in servers)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("m_ivf_0of4", ("m_ivf", 0, 4)),
        ("a_1of2_3of10", ("a_1of2", 3, 10)),
        ("m_ivf", None),
        ("m_4of4", None),
        ("m_01of4", None),
        ("_0of4", None),
    ],
)
def test_names_of_shards_are_read_as_they_are_written(name: str, parts: Any) -> None:
    assert contract.parse_shard(name) == parts
    assert parts is None or contract.shard_name(*parts) == name
