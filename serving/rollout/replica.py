"""Client of one replica, for rollouts."""

from collections.abc import Iterable, Sequence
from typing import Self

from shortlist.clients import GrpcClient, RetrievalClient, RetryPolicy, ServingError
from shortlist.clients.connection import PLAIN, Security
from shortlist.clients.errors import (
    DeadlineExceeded,
    LabelNotFound,
    Overloaded,
    ServableNotFound,
    Unavailable,
    WrongPort,
)
from shortlist.clients.types import State
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.golden import GoldenQuery, compare
from shortlist.serving.rollout.fleet import CheckError, RefusedError, UnreachableError
from shortlist.serving.rollout.state import ServerState

__all__ = ["ReplicaClient"]

_NO_ANSWER = (Unavailable, DeadlineExceeded, Overloaded)


class ReplicaClient:
    """One server over gRPC.

    `GetModelStatus` does not tell labels, and no call returns the configuration. So labels are
    read by `GetModelMetadata`, which answers with the label's version without running the model.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 5.0,
        reload_timeout: float = 300.0,
        security: Security = PLAIN,
        client: RetrievalClient | None = None,
    ) -> None:
        """Prepare a connection without opening it.

        Args:
            address: `host:port` of the gRPC API.
            timeout: Timeout of one request in seconds.
            reload_timeout: Timeout of a reload in seconds; a reload waits for new models.
            security: TLS, headers and proxies.
            client: Client of the address to use and close; over REST it cannot reload.
        """
        self._address = address
        self._reload_timeout = reload_timeout
        self._client: RetrievalClient = client or GrpcClient(
            address,
            timeout=timeout,
            retry=RetryPolicy(max_attempts=3, initial_backoff=0.1),
            **security.unlogged()._asdict(),
        )

    @property
    def address(self) -> str:
        """`host:port`."""
        return self._address

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def observe(self, name: str, labels: Iterable[str]) -> ServerState:
        """Return the state of one servable and the versions of these labels."""
        available, busy, failed = set(), set(), {}
        try:
            versions = self._client.status(model=name).versions
        except ServableNotFound:
            versions = ()
        except WrongPort as exc:
            # Not unreachable, so that no rollout goes on without it. Rollouts have only gRPC.
            raise RolloutError(str(exc).partition(", or RestClient")[0]) from exc
        except ServingError as exc:
            raise UnreachableError(_first_sentence(exc)) from exc
        for status in versions:
            if status.state is State.AVAILABLE:
                available.add(status.version)
            elif status.state is not State.END:
                busy.add(status.version)
            elif status.error_message is not None or status.error_code != "OK":
                failed[status.version] = status.error_message or status.error_code
        at: dict[str, int] = {}
        dangling = set()
        for label in sorted(labels) if versions else ():
            try:
                version = self._client.metadata(model=name, label=label).version
            except LabelNotFound:
                continue
            except ServableNotFound:
                dangling.add(label)
                continue
            except ServingError as exc:
                raise UnreachableError(_first_sentence(exc)) from exc
            if version is not None:
                at[label] = version
        return ServerState(
            address=self._address,
            available=frozenset(available),
            busy=frozenset(busy),
            failed=failed,
            labels=at,
            dangling=frozenset(dangling),
        )

    def reload(self, config: ModelServerConfig) -> None:
        """Replace the server's whole configuration."""
        try:
            self._client.reload_config(config, timeout=self._reload_timeout)
        except _NO_ANSWER as exc:
            raise UnreachableError(_first_sentence(exc)) from exc
        except ServingError as exc:
            raise RefusedError(exc.received or str(exc)) from exc

    def check(self, name: str, version: int, golden: Sequence[GoldenQuery]) -> None:
        """Compare a loaded version's answers with known ones."""
        try:
            if not golden:
                self._client.metadata(model=name, version=version)
            for query in golden:
                answer = self._client.predict(
                    query.inputs, signature=query.signature, model=name, version=version
                )
                problem = compare(query, answer.outputs)
                if problem is not None:
                    raise CheckError(problem)
        except _NO_ANSWER as exc:
            raise UnreachableError(_first_sentence(exc)) from exc
        except (ServingError, ValueError) as exc:
            raise CheckError(str(exc)) from exc


def _first_sentence(exc: ServingError) -> str:
    return str(exc).split("; ")[0]
