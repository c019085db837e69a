"""The servers of one service: what they share is one configuration."""

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
    """A server does not answer; it may be down, starting, or cut off."""


class RefusedError(RolloutError):
    """A server answered and refused a configuration."""


class CheckError(RolloutError):
    """A loaded version does not answer as it should."""


class Server(Protocol):
    """One model server, as rollouts see it."""

    @property
    def address(self) -> str:
        """`host:port`, for people and for the log."""
        ...

    def observe(self, name: str, labels: Iterable[str]) -> ServerState:
        """State of one servable and where these labels point.

        Raises:
            UnreachableError: The server does not answer.
        """
        ...

    def reload(self, config: ModelServerConfig) -> None:
        """Replaces the server's whole configuration.

        Raises:
            UnreachableError: The server does not answer.
            RefusedError: It refuses the configuration.
        """
        ...

    def check(self, name: str, version: int, golden: Sequence[GoldenQuery]) -> None:
        """Asks a loaded version for answers that are known.

        Args:
            name: Model name.
            version: Its version.
            golden: Known queries and answers of this version; may be empty.

        Raises:
            UnreachableError: The server does not answer.
            CheckError: The version fails, or answers otherwise.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A state, and the servers that could not be asked.

    Attributes:
        state: What the others say.
        unreachable: Reason by address.
    """

    state: ServableState
    unreachable: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Servers that serve one repository with one configuration.

    Attributes:
        repository: The model repository.
        servers: All replicas.
        config_file: The file that they start from.
        polled: Whether they poll that file; otherwise they are sent reloads.
    """

    repository: ModelRepository
    servers: tuple[Server, ...]
    config_file: ConfigFile
    polled: bool = False

    def observe(self, name: str) -> Observation:
        """State of one servable in the repository, the configuration, and on every server.

        Raises:
            RolloutError: The configuration file is there and cannot be read.
        """
        # Without a file there is nothing to roll out by, but versions can be looked at.
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
        """The server at an address."""
        return next(server for server in self.servers if server.address == address)
