"""The servers of one service, which share one configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.state import MANAGED_LABELS, ServableState, ServerState

__all__ = ["CheckError", "Fleet", "Observation", "RefusedError", "Server", "UnreachableError"]


class UnreachableError(RolloutError):
    """A server does not answer; it may be down, starting or disconnected."""


class RefusedError(RolloutError):
    """A server refused a configuration."""


class CheckError(RolloutError):
    """A loaded version gives wrong answers."""


class Server(Protocol):
    """One model server, as rollouts see it."""

    @property
    def address(self) -> str:
        """`host:port`, for messages and the log."""
        ...

    def observe(self, name: str, labels: Iterable[str]) -> ServerState:
        """Return the state of one servable and the versions of these labels.

        Raises:
            UnreachableError: The server does not answer.
            RolloutError: The port is not that of a server's gRPC API.
        """
        ...

    def reload(self, config: ModelServerConfig) -> None:
        """Replace the server's whole configuration.

        Raises:
            UnreachableError: The server does not answer.
            RefusedError: The server refuses the configuration.
        """
        ...

    def check(self, name: str, version: int, golden: Sequence[GoldenQuery]) -> None:
        """Compare a loaded version's answers with known ones.

        Args:
            name: Model name.
            version: Version.
            golden: Queries with known answers; may be empty.

        Raises:
            UnreachableError: The server does not answer.
            CheckError: The version fails or gives other answers.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Observation:
    """State, and servers that did not answer.

    Attributes:
        state: State according to the servers that answered.
        unreachable: Reason by address, for those that did not.
    """

    state: ServableState
    unreachable: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Servers that serve one repository with one configuration.

    Attributes:
        repository: The model repository.
        servers: All replicas.
        config_file: File that they start from.
        polled: Whether they poll that file; otherwise they receive reloads.
    """

    repository: ModelRepository
    servers: tuple[Server, ...]
    config_file: ConfigFile
    polled: bool = False

    def observe(self, name: str) -> Observation:
        """Return the state of one servable in repository, configuration and servers.

        Raises:
            RolloutError: The configuration file exists and cannot be read.
        """
        # Without a file no rollout is possible, but versions can be listed.
        recorded = self.config_file.entry(name) if self.config_file.path.exists() else None
        labels = {*MANAGED_LABELS, *(recorded.labels if recorded else ())}
        states: list[ServerState] = []
        unreachable: dict[str, str] = {}
        for server in self.servers:
            try:
                states.append(server.observe(name, labels))
            except UnreachableError as exc:
                unreachable[server.address] = str(exc)
        return Observation(
            state=ServableState(
                name=name,
                published=tuple(self.repository.versions(name)),
                recorded=recorded,
                servers=tuple(states),
            ),
            unreachable=unreachable,
        )

    def by_address(self, address: str) -> Server:
        """Return the server at an address."""
        return next(server for server in self.servers if server.address == address)
