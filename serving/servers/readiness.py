"""Whether a model server has the versions that it is meant to have."""

from collections.abc import Callable, Iterable

from shortlist.clients import GrpcClient
from shortlist.clients.errors import ServingError
from shortlist.clients.types import State
from shortlist.serving.repository.selection import ServableFound

__all__ = ["all_available"]

POLL_TIMEOUT = 2.0  # seconds for one question


def all_available(
    client: GrpcClient, servables: Iterable[ServableFound]
) -> Callable[[], str | None]:
    """A question for `ModelServer.wait_until`: is the found version of each servable AVAILABLE?

    An open port or gRPC's health service would not tell: both say yes before, and the
    latter also after, a version failed to load.

    Args:
        client: Asks the server.
        servables: What has to be there.

    Returns:
        A function that returns None when all are AVAILABLE, else the first state that is not.
    """
    wanted = {servable.name: servable.version for servable in servables}

    def missing() -> str | None:
        for name, version in wanted.items():
            try:
                status = client.status(model=name, timeout=POLL_TIMEOUT)
            except ServingError as exc:
                return f"{name}: {exc}"
            found = {entry.version: entry for entry in status.versions}
            if version not in found:
                return f"{name}: the server does not know version {version} yet"
            entry = found[version]
            if entry.state is not State.AVAILABLE:
                reason = f": {entry.error_message}" if entry.error_message else ""
                return f"{name}: version {version} is {entry.state.name}{reason}"
        return None

    return missing
