"""State of a servable: in the repository, in the configuration, on every server."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.server_config import STABLE, ModelEntry

__all__ = [
    "CANARY",
    "MANAGED_LABELS",
    "PREVIOUS",
    "ServableState",
    "ServerState",
]

CANARY = "canary"  # version that some requests get; stable's version between canaries
PREVIOUS = "previous"  # target of a rollback; exists only if that is another version than stable
MANAGED_LABELS = (STABLE, CANARY, PREVIOUS)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """State of a servable on one server.

    Attributes:
        address: `host:port` of its gRPC API.
        available: Versions that answer requests.
        busy: Versions that are loading or unloading.
        failed: Reason by version, for versions that did not load.
        labels: Version by label, for labels that answer.
        dangling: Labels that the server knows but whose version is not loaded.
    """

    address: str
    available: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    dangling: frozenset[str] = frozenset()

    @property
    def present(self) -> frozenset[int]:
        """Versions that take memory."""
        return self.available | self.busy


@dataclass(frozen=True, kw_only=True)
class ServableState:
    """State of a servable everywhere; the input of a plan.

    Attributes:
        name: Model name.
        published: Versions in the repository, sorted.
        recorded: Entry of the configuration file; `None` if there is none.
        servers: The servers that answer.
    """

    name: str
    published: tuple[int, ...]
    recorded: ModelEntry | None
    servers: tuple[ServerState, ...]

    def label(self, label: str) -> int | None:
        """Return the version that a label points at, or `None` if no server has the label.

        Servers disagree only during a move. Then the configuration file decides: it is written
        after the last server, so it still holds the state before the move.

        Raises:
            RolloutError: Servers disagree and the configuration file does not decide.
        """
        if not self.servers:
            raise RolloutError(
                f"no server of {self.name!r} answers; see `shortlist rollout status`"
            )
        versions = {server.labels.get(label) for server in self.servers}
        if len(versions) == 1:
            return versions.pop()
        known = sorted(version for version in versions if version is not None)
        recorded = self.recorded.labels.get(label) if self.recorded else None
        if recorded in versions and recorded is not None:
            return recorded
        if len(set(known)) == 1:
            return known[0]
        raise RolloutError(
            f"{self.disagreement(label)} and the configuration file does not decide; name the "
            "version: `shortlist rollback --to VERSION`"
        )

    def disagreement(self, label: str) -> str:
        """Return the beginning of a message: the servers' versions of a label."""
        where = ", ".join(
            f"{server.address}: {server.labels.get(label, 'no version')}" for server in self.servers
        )
        return f"the servers disagreed on label {label!r} of {self.name!r} ({where})"

    def foreign_labels(self) -> dict[str, int]:
        """Return labels that others set; rollouts keep them and their versions."""
        labels = dict(self.recorded.labels) if self.recorded else {}
        for server in self.servers:
            labels.update(server.labels)
        return {label: at for label, at in labels.items() if label not in MANAGED_LABELS}

    def present(self) -> frozenset[int]:
        """Return the versions that a server holds or that the configuration lists."""
        versions = {version for server in self.servers for version in server.present}
        if self.recorded and self.recorded.versions:
            versions.update(self.recorded.versions)
        return frozenset(versions)

    def with_entry(self, entry: ModelEntry) -> "ServableState":
        """Return the state after every server has applied an entry."""
        versions = frozenset(entry.versions or ())
        servers = tuple(
            replace(
                server,
                available=versions,
                busy=frozenset(),
                failed={},
                labels=dict(entry.labels),
                dangling=frozenset(),
            )
            for server in self.servers
        )
        return replace(self, recorded=entry, servers=servers)
