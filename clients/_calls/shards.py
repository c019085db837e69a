"""Flows over the shards of a model, without input or output: ask all, agree on a version, merge.

A flow yields lists of calls, and gets a result or an error for each of them sent back.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

from shortlist.clients import contract, errors
from shortlist.clients._arguments import seconds, text, whole
from shortlist.clients._calls.retry import Deadline
from shortlist.clients.types import Metadata, ModelStatus, Ranking, State, VersionStatus

__all__ = ["Asked", "Partial", "ShardCall", "ShardFlow", "Shards"]

R = TypeVar("R", bound=Ranking)
T = TypeVar("T")
Partial = Literal["refuse", "allow"]

# Errors of a shard that is down or behind the others, rather than of the request.
_DOWN: Final = (
    errors.DeadlineExceeded,
    errors.LabelNotFound,
    errors.LoadFailed,
    errors.Overloaded,
    errors.ProtocolError,
    errors.ServableNotFound,
    errors.ServerError,
    errors.Unavailable,
)
_SETTINGS: Final = (errors.MissingOp, errors.TooManyInFlight, errors.WrongPort)
_LEAST: Final = 1e-3  # seconds for a call whose time is up, so that it says so itself


@dataclass(slots=True)
class ShardCall:
    """Call a method of the client of one shard.

    Attributes:
        number: Number of the shard.
        method: Name of the method.
        arguments: Its keyword arguments.
    """

    number: int
    method: str
    arguments: dict[str, Any]


class Asked(NamedTuple):
    """What every method of a client takes besides its own arguments."""

    model: str | None = None
    version: int | None = None
    label: Any = None  # a name, or a `Split`
    timeout: float | None = None


ShardFlow = Generator[list[ShardCall], list[Any], T]


class Shards:
    """The shards of a model, in order; safe to use from several threads."""

    def __init__(self, count: int, *, model: str, timeout: float, partial: Partial) -> None:
        if partial not in ("refuse", "allow"):
            raise ValueError(f"partial must be 'refuse' or 'allow', got {partial!r}")
        self.count = whole("the number of shards", count, least=1)
        self._model = text("model", model)
        self._timeout = seconds("timeout", timeout)
        self._allows = partial == "allow"
        self._turn = 0

    # --- answers of all shards -------------------------------------------------------

    def ranked(
        self,
        method: str,
        rows: Mapping[str, Sequence[Any] | None],
        options: Mapping[str, Any],
        *,
        k: int | None,
        asked: Asked,
    ) -> ShardFlow[list[Any]]:
        """Return the rankings of all shards, merged: best scores first, then by shard.

        Args:
            method: `retrieve` or `similar`.
            rows: Arguments with an entry for each row.
            options: Other arguments.
            k: Candidates per row.
            asked: Target and timeout; None for the defaults.
        """
        model, deadline = asked.model, self._deadline(asked.timeout)
        rows = {name: _listed(column) for name, column in rows.items()}
        options = {**options, **({} if k is None else {"k": k})}
        of = {"version": asked.version, "label": asked.label}
        parts: list[list[Ranking] | None] = []
        behind: list[int] = []
        arguments = {**rows, **options, **of}
        answers = yield self._calls(method, range(self.count), model, deadline, arguments)
        failed = {number: reply for number, reply in enumerate(answers) if _is_error(reply)}
        for number, reply in enumerate(answers):
            parts.append(None if number in failed else reply)
            if isinstance(reply, errors.LabelNotFound) and len(failed) < self.count:
                behind.append(number)  # it may hold the version that the label names
            elif number in failed:
                self._refuse(number, model, reply, everywhere=len(failed) == self.count)
        width = k or contract.DEFAULT_K
        present = [part for part in parts if part is not None]
        columns = list(zip(*present, strict=True))
        if not behind and all(_agree(column) for column in columns):
            missing = tuple(failed)
            return [_merged(column, width, missing) for column in columns]
        return (
            yield from self._agreed(
                method, rows, options, parts, behind, width=width, model=model, deadline=deadline
            )
        )

    def _agreed(
        self,
        method: str,
        rows: Mapping[str, Sequence[Any] | None],
        options: Mapping[str, Any],
        parts: Sequence[Sequence[Ranking] | None],
        behind: Sequence[int],
        *,
        width: int,
        model: str | None,
        deadline: Deadline,
    ) -> ShardFlow[list[Any]]:
        """Return merged rankings after asking again where shards answered other versions."""
        size = max(len(part) for part in parts if part is not None)
        groups: dict[tuple[int | None, ...], list[int]] = {}
        for row in range(size):
            found = tuple(None if part is None else part[row].version for part in parts)
            groups.setdefault(found, []).append(row)
        merged: list[Any] = [None] * size
        for versions, members in groups.items():
            some = {
                name: None if column is None else [column[row] for row in members]
                for name, column in rows.items()
            }
            taken = [None if part is None else [part[row] for row in members] for part in parts]
            yield from self._one_version(
                method, {**some, **options}, taken, versions, behind, model, deadline
            )
            missing = tuple(number for number, part in enumerate(taken) if part is None)
            columns = zip(*(part for part in taken if part is not None), strict=True)
            for row, column in zip(members, columns, strict=True):
                merged[row] = _merged(column, width, missing)
        return merged

    def _one_version(
        self,
        method: str,
        arguments: Mapping[str, Any],
        parts: list[list[Ranking] | None],
        versions: Sequence[int | None],
        behind: Sequence[int],
        model: str | None,
        deadline: Deadline,
    ) -> ShardFlow[None]:
        """Replace the answers of other versions, by asking for one that all shards hold.

        While a version loads or a label moves, every shard still holds the version before.
        """
        known = sorted({version for version in versions if version is not None}, reverse=True)
        for version in known:
            differ = [number for number, at in enumerate(versions) if at not in (version, None)]
            differ = sorted({*differ, *behind})
            if not differ:
                return
            by_number = {**arguments, "version": version, "label": None}
            replies = yield self._calls(method, differ, model, deadline, by_number)
            if any(isinstance(reply, errors.ServableNotFound) for reply in replies):
                continue
            like = next(part for part, at in zip(parts, versions, strict=True) if at == version)
            for number, reply in zip(differ, replies, strict=True):
                if _is_error(reply):
                    self._refuse(number, model, reply, everywhere=False)
                    parts[number] = None
                else:
                    parts[number] = list(map(_with_label, reply, like or ()))
            return
        if not self._allows or not known:
            listed = ", ".join(
                f"{self._name(model, number)}: {'none' if at is None else f'version {at}'}"
                for number, at in enumerate(versions)
            )
            raise errors.ServableNotFound(
                f"the shards hold no version in common ({listed}); roll out all of them together, "
                "see `shortlist rollout status`"
            )
        most = max(known, key=versions.count)  # the newest of several
        for number, at in enumerate(versions):
            if at != most:
                parts[number] = None

    def status(self, asked: Asked) -> ShardFlow[ModelStatus]:
        """Return the states of the versions; AVAILABLE is what every shard can answer."""
        model, deadline = asked.model, self._deadline(asked.timeout)
        arguments = {"version": asked.version}
        replies = yield self._calls("status", range(self.count), model, deadline, arguments)
        return self._joined(replies, model)

    def wait(self, asked: Asked, *, poll_interval: float) -> ShardFlow[ModelStatus]:
        """Wait until every shard is AVAILABLE."""
        model, deadline = asked.model, self._deadline(asked.timeout)
        arguments = {"version": asked.version, "label": asked.label, "poll_interval": poll_interval}
        method = "wait_until_available"
        replies = yield self._calls(method, range(self.count), model, deadline, arguments)
        return self._joined(replies, model)

    def _joined(self, replies: Sequence[Any], model: str | None) -> ModelStatus:
        by_version: dict[int, list[VersionStatus]] = {}
        for number, reply in enumerate(replies):
            if _is_error(reply):
                raise self._named(number, model, reply)
            for entry in cast(ModelStatus, reply).versions:
                by_version.setdefault(entry.version, []).append(entry)
        versions = []
        for version, entries in by_version.items():
            others = [entry for entry in entries if entry.state is not State.AVAILABLE]
            lacking = VersionStatus(version=version, state=State.UNKNOWN)
            others += [lacking] if len(entries) < self.count else []
            versions.append((others or entries)[0])
        return ModelStatus(model=self._base(model), versions=tuple(versions))

    # --- answers of any shard --------------------------------------------------------

    def any(self, method: str, arguments: Mapping[str, Any], asked: Asked) -> ShardFlow[Any]:
        """Return the answer of one shard, of the next ones if it is down: all answer the same."""
        model, deadline = asked.model, self._deadline(asked.timeout)
        arguments = {**arguments, "version": asked.version, "label": asked.label}
        self._turn += 1  # a lost update between threads only repeats a shard
        first: errors.ServingError | None = None
        for step in range(self.count):
            number = (self._turn + step) % self.count
            (reply,) = yield self._calls(method, [number], model, deadline, arguments)
            if not _is_error(reply):
                return reply
            error = self._named(number, model, reply)
            first = first or error
            if not _is_down(reply) or deadline.remaining() <= 0:
                break
        assert first is not None
        raise first

    def metadata(self, asked: Asked) -> ShardFlow[Metadata]:
        """Return the signatures, which are those of every shard."""
        found: Metadata = yield from self.any("metadata", {}, asked)
        return replace(found, model=self._base(asked.model))

    # --- calls -----------------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _base(self, model: str | None) -> str:
        return self._model if model is None else text("model", model)

    def _name(self, model: str | None, number: int) -> str:
        return contract.shard_name(self._base(model), number, self.count)

    def _calls(
        self,
        method: str,
        numbers: Sequence[int],
        model: str | None,
        deadline: Deadline,
        arguments: Mapping[str, Any],
    ) -> list[ShardCall]:
        timeout = max(deadline.remaining(), _LEAST)
        return [
            ShardCall(
                number,
                method,
                {**arguments, "model": self._name(model, number), "timeout": timeout},
            )
            for number in numbers
        ]

    def _refuse(
        self, number: int, model: str | None, error: Exception, *, everywhere: bool
    ) -> None:
        """Raise the error of a shard, unless it may be missing from an answer."""
        if everywhere or not self._allows or not _is_down(error):
            raise self._named(number, model, error)

    def _named(self, number: int, model: str | None, error: Exception) -> errors.ServingError:
        """Return the error with the name of its shard.

        Raises:
            ValueError: The error is one: an argument is wrong, for every shard.
        """
        if not isinstance(error, errors.ServingError):
            raise error
        where = f"shard {number} of {self.count} ({self._name(model, number)})"
        named = type(error)(f"{where}: {error}", received=error.received)
        named.__cause__ = error
        return named


def _listed(column: Any) -> Any:
    """Return the rows of an argument as a list; clients refuse what has none."""
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        return column
    return list(column)


def _is_error(reply: object) -> bool:
    return isinstance(reply, Exception)


def _agree(column: Sequence[Ranking]) -> bool:
    return len({ranking.version for ranking in column}) == 1


def _is_down(error: object) -> bool:
    """Return whether a shard is to blame, rather than the request or the settings."""
    return isinstance(error, _DOWN) and not isinstance(error, _SETTINGS)


def _with_label(row: Any, like: Any) -> Any:
    """Return a ranking, asked for by number, with the label of the request."""
    return replace(row, label=like.label) if hasattr(row, "label") else row


def _merged(parts: Sequence[R], k: int, missing: tuple[int, ...]) -> R:
    """Return the best k of rankings; a shard's own order, and then its number, decide ties."""
    ids: list[str] = []
    scores: list[float] = []
    for part in parts:
        ids += part.candidate_ids
        scores += part.scores
    # A stable sort, which makes use of the parts' order.
    best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:k]
    return replace(
        parts[0],
        candidate_ids=tuple([ids[column] for column in best]),
        scores=tuple([scores[column] for column in best]),
        shards_missing=missing,
    )
