"""Queries that a version is known to answer, whoever exported it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.clients.interface import RetrievalInterface
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery, read_golden
from shortlist.serving.repository.probe import read_probe
from shortlist.serving.repository.version import Manifest, read_manifest

__all__ = ["KnownQueries", "common_requests", "known_queries"]


@dataclass(frozen=True, kw_only=True)
class KnownQueries:
    """How a version retrieves candidates, and for whom it is known to.

    Attributes:
        interface: The tensors that retrieve candidates.
        users: User ids, if they are all that it takes.
        requests: Otherwise inputs by name, each with the dimension of the batch.
    """

    interface: RetrievalInterface
    users: tuple[str, ...] = ()
    requests: tuple[Mapping[str, Any], ...] = ()

    def query(self, request: Mapping[str, Any]) -> GoldenQuery:
        """Return a request to this version; a single input gets this version's name for it."""
        if len(request) == 1 and not self.interface.others:
            request = {self.interface.query: next(iter(request.values()))}
        return GoldenQuery(signature=self.interface.signature, inputs=request, outputs={})

    def by_user(self) -> list[Mapping[str, Any]]:
        """Return arguments of the clients' `retrieve` for each user."""
        queries: list[Mapping[str, Any]] = [{"user_ids": [user]} for user in self.users]
        for request in self.requests:
            for row, user in enumerate(_flat(request[self.interface.query])):
                features = {name: request[name][row] for name in self.interface.others}
                query = {"user_ids": [user]}
                queries.append({**query, "features": [features]} if features else query)
        return queries


def known_queries(path: Path) -> KnownQueries:
    """Return the queries that the files of a version tell.

    Raises:
        RepositoryError: A file cannot be read, or the version retrieves no candidates.
    """
    manifest, probe = read_manifest(path) or Manifest(), read_probe(path)
    if manifest.ops is not None and manifest.retrieval is None:
        raise RepositoryError(f"no signature of {path} is known to retrieve candidates")
    interface = manifest.retrieval or RetrievalInterface()
    if probe is not None and probe.inputs is None:
        return KnownQueries(interface=interface, users=tuple(probe.user_ids))
    if probe is not None:
        requests = list(probe.requests(max(1, len(probe.user_ids))))
    else:
        requests = [
            dict(query.inputs)
            for query in read_golden(path)
            if query.signature == interface.signature and interface.query in query.inputs
        ]
    if interface.others:
        return KnownQueries(interface=interface, requests=tuple(requests))
    users = [user for request in requests for user in _flat(request[interface.query])]
    return KnownQueries(interface=interface, users=tuple(dict.fromkeys(users)))


def common_requests(known: Sequence[KnownQueries]) -> list[Mapping[str, Any]]:
    """Return every request that one of the versions is known to answer."""
    users = sorted({user for version in known for user in version.users})
    requests = [request for version in known for request in version.requests]
    distinct = [request for at, request in enumerate(requests) if request not in requests[:at]]
    return [*([{contract.USER_ID: users}] if users else []), *distinct]


def _flat(values: Sequence[Any]) -> list[str]:
    """Return one user id per row of `[batch]` or `[batch, 1]`."""
    return [str(value[0] if isinstance(value, list) else value) for value in values]
