"""The servers of one service, which share one configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.history import HISTORY_FILE, History
from shortlist.serving.rollout.lint import Finding, lint
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

    def problems(self) -> list[str]:
        """Return a line for each disagreement between servers and configuration file."""
        problems = [
            f"{address} does not answer: {why}" for address, why in self.unreachable.items()
        ]
        recorded = self.state.recorded
        for server in self.state.servers:
            for version, reason in server.failed.items():
                problems.append(f"{server.address}: version {version} did not load: {reason}")
            for label in sorted(server.dangling):
                problems.append(f"{server.address}: label {label!r} points at a version not loaded")
            if server.busy:
                busy = ", ".join(map(str, sorted(server.busy)))
                problems.append(f"{server.address}: version {busy} is loading or unloading")
            if recorded is None and server.present:
                problems.append(
                    f"{server.address}: serves this model, which the configuration file does not "
                    "list: rollouts of other models are refused, because they would unload it"
                )
            if recorded is not None and dict(server.labels) != dict(recorded.labels):
                problems.append(
                    f"{server.address}: labels {dict(server.labels)} differ from the configuration "
                    f"file's {dict(recorded.labels)}: a rollout was interrupted, or another "
                    "process moved them; run its command again, or `shortlist rollback`"
                )
        return problems


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Servers that serve one repository with one configuration.

    Attributes:
        repository: The model repository.
        servers: All replicas.
        config_file: File that they start from.
        polled: Whether they poll that file; otherwise they receive reloads.
        all_or_none: Whether a version that cannot be loaded on all of them is removed from all.
    """

    repository: ModelRepository
    servers: tuple[Server, ...]
    config_file: ConfigFile
    polled: bool = False
    all_or_none: bool = False

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

    def lint(self, config: ModelServerConfig, current: ModelServerConfig) -> list[Finding]:
        """Return the findings about a configuration that replaces the current one."""
        return lint(config, current=current, repository=self.repository)

    def known_models(self) -> set[str]:
        """Return the models of the repository and of past rollouts."""
        history = History(self.repository.root / HISTORY_FILE)
        return {*self.repository.models(), *history.known_models()}

    def unlisted(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the models among `names` that a server holds and the configuration file lacks.

        Servers do not list their models, so each name is asked for.

        Returns:
            Addresses by model name.

        Raises:
            RolloutError: The configuration file cannot be read.
        """
        config = self.config_file.read()
        missing = set(names) - {model.name for model in config.model_config_list.config}
        held: dict[str, list[str]] = {}
        for server in self.servers:
            for name in sorted(missing):
                try:
                    if server.observe(name, ()).present:
                        held.setdefault(name, []).append(server.address)
                except UnreachableError:
                    break  # the caller meets it again, and knows whether it matters
        return held

    def require_listed(self, names: Iterable[str]) -> None:
        """Refuse a configuration file that lacks a model that a server holds, or lists none.

        Raises:
            RolloutError: A reload with such a file would unload models.
        """
        unlisted = self.unlisted(names)
        empty = not self.config_file.read().model_config_list.config
        if not unlisted and not empty:
            return
        path = self.config_file.path
        lost = "; ".join(f"{name} on {', '.join(at)}" for name, at in sorted(unlisted.items()))
        effect = f"would unload {lost}" if lost else "would unload what it does not list"
        lists = "lists no model" if empty else f"does not list {', '.join(sorted(unlisted))}"
        raise RolloutError(
            f"{path} {lists}; a rollout replaces the servers' whole configuration by this "
            f"file's and {effect}. Name the file that the servers were started with (--config "
            "FILE), or complete this one"
        )

    def by_address(self, address: str) -> Server:
        """Return the server at an address."""
        return next(server for server in self.servers if server.address == address)
