"""`ShardedClient`."""

from collections.abc import Sequence
from typing import Any, Literal, Self, TypeVar

from shortlist.clients import contract
from shortlist.clients._arguments import whole
from shortlist.clients._calls.shards import Asked, Partial, ShardCall, ShardFlow, Shards
from shortlist.clients._client import RetrievalClient
from shortlist.clients._engines.threads import Threads
from shortlist.clients.errors import ServingError
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Embedding,
    Exclude,
    Features,
    Filter,
    Metadata,
    ModelStatus,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["ShardedClient", "checked_addresses"]

T = TypeVar("T")

_CALLS = 32  # of one client at a time that do not wait for each other


class ShardedClient:
    """Client for a model that `shortlist export --shards` divided over several servables.

    Asks all shards at once, within one deadline, and merges their answers exactly: every shard
    has the same query tower, so scores are comparable. Methods and arguments are those of
    `GrpcClient`; `predict` and the like are for the client of one shard, see `clients`. Answers of
    different versions are never mixed: if a rollout moves a label between two answers, shards
    are asked again for a version that all hold. May be shared between threads.
    """

    def __init__(
        self,
        clients: Sequence[RetrievalClient],
        *,
        model: str = contract.DEFAULT_SERVABLE,
        timeout: float = contract.DEFAULT_TIMEOUT,
        partial: Partial = "refuse",
    ) -> None:
        """Take one client for each shard, in order; the same one if a server holds several.

        Args:
            clients: Clients of the shards, whose servables are called `<model>_<i>of<N>`.
            model: Default model name of the calls, without the shard.
            timeout: Default timeout of the calls in seconds, retries included.
            partial: What `retrieve` and `similar` do without an answer of a shard: `refuse`
                raises its error, which names the shard; `allow` returns what the others have and
                tells it in `shards_missing`.

        Raises:
            ValueError: An argument is wrong.
        """
        self.clients = tuple(clients)
        self._shards = Shards(len(self.clients), model=model, timeout=timeout, partial=partial)
        self._threads = Threads(_CALLS * len(self.clients))

    @classmethod
    def from_addresses(
        cls,
        addresses: Sequence[str | Sequence[str]],
        *,
        shards: int | None = None,
        transport: Literal["grpc", "rest"] = "grpc",
        model: str = contract.DEFAULT_SERVABLE,
        timeout: float = contract.DEFAULT_TIMEOUT,
        partial: Partial = "refuse",
        **options: Any,
    ) -> Self:
        """Connect to the servers of the shards.

        Args:
            addresses: Address of each shard in order, or several for its replicas; a single one
                if it holds all shards.
            shards: Number of shards; `None` for one per address.
            transport: API to use.
            model: As for the constructor.
            timeout: As for the constructor.
            partial: As for the constructor.
            **options: Further arguments of `GrpcClient` or `RestClient`.

        Raises:
            ValueError: An argument is wrong, or there are not as many addresses as shards.
        """
        kind = _client_kind(transport)
        opened = [kind(address, **options) for address in checked_addresses(addresses, shards)]
        clients = opened * (shards or 1) if len(opened) == 1 else opened
        return cls(clients, model=model, timeout=timeout, partial=partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients of all shards. May be called twice."""
        self._threads.close()
        for client in dict.fromkeys(self.clients):
            client.close()

    def retrieve(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
        k: int | None = None,
        exclude: Exclude | None = None,
        exclude_history: bool = True,
        exclude_seen: bool = False,
        filter: Filter | None = None,  # noqa: A002 - the word that users look for
        model: str | None = None,
        version: int | None = None,
        label: str | Split | None = None,
        timeout: float | None = None,
    ) -> list[Retrieval]:
        """Return candidates of the whole corpus for each user, best first.

        The arguments are those of `GrpcClient.retrieve`.

        Raises:
            ServingError: A shard failed, and `partial` is `refuse`; or all failed.
            ServableNotFound: The shards hold no version in common.
        """
        rows = {
            "user_ids": user_ids,
            "history": history,
            "history_ages": history_ages,
            "history_weights": history_weights,
            "features": features,
        }
        options = {
            "exclude": exclude,
            "exclude_history": exclude_history,
            "exclude_seen": exclude_seen,
            "filter": filter,
        }
        asked = Asked(model, version, label, timeout)
        return self._run(self._shards.ranked("retrieve", rows, options, k=k, asked=asked))

    def similar(
        self,
        candidate_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Similar]:
        """Return the most similar candidates of the whole corpus, as `GrpcClient.similar`."""
        rows = {"candidate_ids": candidate_ids}
        asked = Asked(model, version, label, timeout)
        return self._run(self._shards.ranked("similar", rows, {}, k=k, asked=asked))

    def embed(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Embedding]:
        """Return the embedding of each user, from any shard: all have the same query tower."""
        arguments = {
            "user_ids": user_ids,
            "history": history,
            "history_ages": history_ages,
            "history_weights": history_weights,
            "features": features,
        }
        asked = Asked(model, version, label, timeout)
        return self._run(self._shards.any("embed", arguments, asked))

    def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """Return the predicted rating of each pair, from any shard."""
        asked = Asked(model, version, label, timeout)
        return self._run(self._shards.any("rate", {"pairs": pairs}, asked))

    def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """Return the signatures and version, from any shard."""
        asked = Asked(model, version, label, timeout)
        return self._run(self._shards.metadata(asked))

    def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """Return the states of the versions: AVAILABLE is what every shard can answer.

        The state of another version is that of the first shard in which it is not AVAILABLE;
        UNKNOWN if a shard does not have it.
        """
        return self._run(self._shards.status(Asked(model, version, None, timeout)))

    def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """Poll until the servables of all shards are AVAILABLE."""
        asked = Asked(model, version, label, timeout)
        return self._run(self._shards.wait(asked, poll_interval=poll_interval))

    def _run(self, flow: ShardFlow[T]) -> T:
        try:
            calls = next(flow)
            while True:
                calls = flow.send(self._gather(calls))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _gather(self, calls: list[ShardCall]) -> list[Any]:
        """Return results and errors; this thread makes the first call itself."""
        first, *others = calls
        futures = [self._threads.pool().submit(self._attempt, call) for call in others]
        return [self._attempt(first), *(future.result() for future in futures)]

    def _attempt(self, call: ShardCall) -> Any:
        try:
            return getattr(self.clients[call.number], call.method)(**call.arguments)
        except (ServingError, ValueError) as error:
            return error


def _client_kind(transport: str) -> Any:
    if transport == "rest":
        from shortlist.clients.rest import RestClient

        return RestClient
    if transport == "grpc":
        from shortlist.clients.grpc import GrpcClient

        return GrpcClient
    raise ValueError(f"transport must be 'grpc' or 'rest', got {transport!r}")


def checked_addresses(
    addresses: Sequence[str | Sequence[str]], shards: int | None
) -> Sequence[str | Sequence[str]]:
    """Return one address, or as many as there are shards.

    Raises:
        ValueError: There are others, or `shards` is not a number of shards.
    """
    if shards is not None:
        whole("shards", shards, least=1)
    if isinstance(addresses, str):
        raise ValueError(
            f"addresses takes a list, got {addresses!r}; use [{addresses!r}], and shards=N if it "
            "holds several"
        )
    if not addresses or (shards is not None and len(addresses) not in (1, shards)):
        wanted = "one for each shard" if shards is None else f"one, or one for each of {shards}"
        raise ValueError(f"got {len(addresses)} addresses; give {wanted}, in order")
    return addresses
