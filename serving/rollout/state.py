"""What is known of one servable: in the repository, in the configuration, on every server."""

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

CANARY = "canary"  # what a small part of them gets; points at stable's version between canaries
PREVIOUS = "previous"  # where a rollback goes; points at stable's version where there is none
MANAGED_LABELS = (STABLE, CANARY, PREVIOUS)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """What one server says of one servable.

    Attributes:
        address: `host:port` of its gRPC API.
        available: Versions that answer requests.
        busy: Versions that are loading or unloading.
        failed: Versions that did not load, with the server's reason.
        labels: Version by label, for labels that answer.
        dangling: Labels that the server knows and whose version is not loaded.
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
    """Everything that a plan is made from.

    Attributes:
        name: Model name.
        published: Versions in the repository, sorted.
        recorded: Entry of the configuration file that servers start from; None if it has none.
        servers: The servers that answer.
    """

    name: str
    published: tuple[int, ...]
    recorded: ModelEntry | None
    servers: tuple[ServerState, ...]

    def label(self, label: str) -> int | None:
        """Version that a label points at; None where no server has the label.

        Servers agree but in the middle of a move. Then the configuration file decides: it
        is written after the last server, so it still holds what was before the move.

        Raises:
            RolloutError: Servers disagree and the configuration file does not decide.
        """
        if not self.servers:
            raise RolloutError(
                f"no server of {self.name!r} answers; see `shortlist rollout status`"
            )
        found = {server.labels.get(label) for server in self.servers}
        if len(found) == 1:
            return found.pop()
        known = sorted(version for version in found if version is not None)
        recorded = self.recorded.labels.get(label) if self.recorded else None
        if recorded in found and recorded is not None:
            return recorded
        if len(set(known)) == 1:
            return known[0]
        where = ", ".join(
            f"{server.address}: {server.labels.get(label, 'no version')}" for server in self.servers
        )
        raise RolloutError(
            f"the servers disagree on label {label!r} of {self.name!r} ({where}) and the "
            "configuration file does not decide; name the version: "
            "`shortlist rollback --to VERSION`"
        )

    def foreign_labels(self) -> dict[str, int]:
        """Labels that somebody else set; rollouts keep them and what they point at."""
        labels = dict(self.recorded.labels) if self.recorded else {}
        for server in self.servers:
            labels.update(server.labels)
        return {label: at for label, at in labels.items() if label not in MANAGED_LABELS}

    def present(self) -> frozenset[int]:
        """Versions that any server holds or that the configuration asks for."""
        found = {version for server in self.servers for version in server.present}
        if self.recorded and self.recorded.versions:
            found.update(self.recorded.versions)
        return frozenset(found)

    def with_entry(self, entry: ModelEntry) -> "ServableState":
        """The state after every server has taken `entry` and done what it asks."""
        wanted = frozenset(entry.versions or ())
        servers = tuple(
            replace(
                server,
                available=wanted,
                busy=frozenset(),
                failed={},
                labels=dict(entry.labels),
                dangling=frozenset(),
            )
            for server in self.servers
        )
        return replace(self, recorded=entry, servers=servers)
