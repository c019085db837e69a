"""Versions that recorded queries are asked of: in this process, or on a server."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from shortlist.clients import GrpcClient, RetryPolicy, contract
from shortlist.clients.connection import Security
from shortlist.clients.errors import ServingError
from shortlist.clients.local import RetrievalOptions
from shortlist.export.bulk import engine

__all__ = ["Answered", "LoadedVersion", "ServedVersion", "Side"]

_OPTIONS: Final = ("k", "exclude", "exclude_history", "exclude_seen", "filter")
_COLUMNS: Final = {
    "user_ids": engine.USERS,
    "history": engine.HISTORY,
    "history_ages": engine.AGES,
    "history_weights": engine.WEIGHTS,
    "features": engine.FEATURES,
}
_MOST_OPTIONS: Final = 1000  # kept; each is one filter or list of exclusions


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answer to a query.

    Attributes:
        candidate_ids: Candidate ids, best first.
        known_user: Whether the version knows the user; `None` if it does not say.
        seconds: Time until the answer, or the error.
        error: Error message; `None` for an answer.
    """

    candidate_ids: tuple[str, ...] = ()
    known_user: bool | None = None
    seconds: float
    error: str | None = None


class Side(Protocol):
    """A version that can be asked."""

    @property
    def name(self) -> str:
        """Name for people, such as `retrieval_ivf/3`."""
        ...

    def ask(self, arguments: Mapping[str, Any]) -> Answered:
        """Answer arguments of the clients' `retrieve` for one user; an error is an answer."""
        ...

    def close(self) -> None:
        """Free the version or the connection."""
        ...


class LoadedVersion:
    """A version of a model repository, loaded into this process.

    Args:
        path: Folder of the version.
        name: Name for people.
        tensors: Arguments of `find_interface`, for signatures that leave them open.

    Raises:
        RepositoryError: It cannot be loaded.
    """

    def __init__(self, path: Path, *, name: str, tensors: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._tensors = tensors
        self._loaded = engine.BulkServable(path, tensors=tensors)
        self._asking: dict[str, engine.BulkServable] = {}

    def ask(self, arguments: Mapping[str, Any]) -> Answered:
        """Answer a query."""
        started = time.perf_counter()
        try:
            servable = self._with({key: arguments[key] for key in _OPTIONS if key in arguments})
            batch = _batch(arguments)
            started = time.perf_counter()
            (row,) = servable.answer(batch).to_pylist()
        except (ServingError, ValueError, pa.ArrowException) as exc:
            return Answered(error=str(exc), seconds=time.perf_counter() - started)
        return Answered(
            candidate_ids=tuple(row[contract.CANDIDATE_IDS]),
            known_user=row.get(contract.KNOWN_USER),
            seconds=time.perf_counter() - started,
        )

    def _with(self, options: Mapping[str, Any]) -> engine.BulkServable:
        """Return the version with options of a query, such as its filter."""
        key = repr(sorted(options.items()))
        if key not in self._asking:
            if len(self._asking) >= _MOST_OPTIONS:
                self._asking.clear()
            self._asking[key] = self._loaded.asking(
                RetrievalOptions(**options), tensors=self._tensors
            )
        return self._asking[key]

    def close(self) -> None:
        """Free the model."""
        self._loaded.close()


def _batch(arguments: Mapping[str, Any]) -> pa.RecordBatch:
    """Return the query as a row of columns, as bulk recommendations take it."""
    fields = [_COLUMNS[name] for name in _COLUMNS if name in arguments]
    arrays = []
    for name, field in _COLUMNS.items():
        if name not in arguments:
            continue
        (value,) = arguments[name]
        if name == "history_ages":
            value = [contract.UNKNOWN_AGE if age is None else age for age in value]
        if name == "features":
            value = [(key, _texts(item)) for key, item in value.items()]
        arrays.append(pa.array([value], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _texts(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list | tuple) else [value])]


class ServedVersion:
    """A version or label on a server, over gRPC.

    Args:
        address: `host:port`, or several of them.
        model: Model name.
        version: Version number; `None` for the label.
        label: Version label.
        name: Name for people.
        timeout: Seconds for one request.
        security: TLS, headers and proxies.

    Raises:
        ServingError: The server does not answer, or lacks the version.
    """

    def __init__(
        self,
        address: Sequence[str],
        *,
        model: str,
        version: int | None,
        label: str | None,
        name: str,
        timeout: float,
        security: Security,
    ) -> None:
        self.name = name
        self._target: dict[str, Any] = {"version": version, "label": label}
        self._client = GrpcClient(
            list(address),
            model=model,
            timeout=timeout,
            retry=RetryPolicy(max_attempts=1),  # latencies are those of one request
            **security.unlogged()._asdict(),
        )
        try:
            metadata = self._client.metadata(**self._target)
        except BaseException:
            self._client.close()
            raise
        if metadata.version is not None and metadata.version != version:
            self.name = f"{name} ({metadata.version})"

    def ask(self, arguments: Mapping[str, Any]) -> Answered:
        """Answer a query."""
        started = time.perf_counter()
        try:
            (answer,) = self._client.retrieve(**arguments, **self._target)
        except (ServingError, ValueError) as exc:
            return Answered(error=str(exc), seconds=time.perf_counter() - started)
        return Answered(
            candidate_ids=answer.candidate_ids,
            known_user=answer.known_user,
            seconds=time.perf_counter() - started,
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
