"""The records of a request log that a command is about, and what it leaves out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Final

from shortlist.clients.request_log.files import PART, SUFFIX
from shortlist.clients.request_log.reading import LogFileError, read_log
from shortlist.clients.request_log.records import LogRecord

__all__ = ["SelectedLog", "Selection", "is_request_log", "printed_count"]

_NOTES: Final = 10
_REASONS: Final = 100  # to tell apart; errors may name anything
_LONGEST: Final = 300  # characters of one
_OTHERS: Final = "other reasons"
_NAMES: Final = (SUFFIX, SUFFIX + PART, ".tfrecord")


def is_request_log(path: Path | str) -> bool:
    """Return whether a file of queries is a request log, according to its name."""
    name = str(path)
    return name.endswith(_NAMES) or Path(name).is_dir() or has_magic(name)


class Reasons(Counter[str]):
    """Number of records by the reason why they were left out; there are only so many reasons."""

    def __setitem__(self, reason: str, count: int) -> None:
        many = len(self) >= _REASONS or len(reason) > _LONGEST
        if many and reason not in self:
            reason, count = _OTHERS, self[_OTHERS] + count
        super().__setitem__(reason, count)

    def shown(self) -> dict[str, int]:
        """Return the most frequent reasons, and how many records had others."""
        most = dict(self.most_common(_NOTES))
        more = len(self) - len(most)
        rest = self.total() - sum(most.values())
        return most if not more else {**most, f"{more:,} more reasons": rest}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which records to take; `None` for all.

    Attributes:
        model: Model name.
        version: Version that answered.
        label: Label of the request.
        signature: Signature name.
        user: One of the request's user ids.
    """

    model: str | None = None
    version: int | None = None
    label: str | None = None
    signature: str | None = None
    user: str | None = None

    def takes(self, record: LogRecord) -> bool:
        """Return whether a record is one of them.

        Raises:
            ValueError: The record's tensors contradict themselves.
        """
        return (
            self.model in (None, record.model)
            and self.version in (None, record.version)
            and self.label in (None, record.label)
            and self.signature in (None, record.signature)
            and (self.user is None or self.user in record.user_ids)
        )

    def __str__(self) -> str:
        named = {name: value for name, value in vars(self).items() if value is not None}
        return ", ".join(f"{name} {value!r}" for name, value in named.items())


class SelectedLog:
    """Iterates once over the selected records of request logs.

    Args:
        paths: Files, folders and patterns.
        selection: Which records to take.

    Attributes:
        count: Records taken so far.
        models: Number of records by model name, of all records so far.
        left_out: Number of records, or of their rows, that could not be used, by reason.
    """

    def __init__(
        self, paths: Path | str | Iterable[Path | str], selection: Selection | None = None
    ) -> None:
        self.count = 0
        self.models: Counter[str] = Counter()
        self.left_out = Reasons()
        self._paths = [paths] if isinstance(paths, Path | str) else list(paths)
        self._selection = selection or Selection()

    def __iter__(self) -> Iterator[LogRecord]:
        for record in read_log(self._paths):
            self.models[record.model] += 1
            try:
                taken = self._selection.takes(record)
            except ValueError as exc:
                self.left_out[f"not readable ({exc})"] += 1
                continue
            if taken:
                self.count += 1
                yield record

    def predictions(self, *, shadows: bool = True) -> Iterator[LogRecord]:
        """Yield the selected records of Predict calls, and count the others.

        Args:
            shadows: Whether to include copies of requests; see `Split.shadow`.
        """
        for record in self:
            if record.kind != "predict":
                self.left_out[f"a {record.kind} call"] += 1
            elif record.shadow and not shadows:
                self.left_out["a shadow copy, whose answer no caller got"] += 1
            else:
                yield record

    def require(self, number: int, what: str) -> None:
        """Refuse to go on with nothing.

        Args:
            number: How many were found.
            what: What they are.

        Raises:
            LogFileError: There are none.
        """
        if number:
            return
        where = ", ".join(map(str, self._paths))
        if not self.models:
            raise LogFileError(f"{where} holds no records yet; send the server some requests")
        if self.count:
            reasons = "; ".join(f"{count:,}: {why}" for why, count in self.left_out.most_common(3))
            reasons += (
                f"; and {more:,} more reasons" if (more := len(self.left_out) - 3) > 0 else ""
            )
            raise LogFileError(
                f"{where} holds {self.count:,} records but no {what}"
                + (f" ({reasons})" if reasons else "")
            )
        models = ", ".join(f"{name} ({count:,})" for name, count in self.models.most_common(5))
        raise LogFileError(
            f"{where} holds no records of {self._selection}; its records by model: {models}"
        )

    def notes(self) -> list[str]:
        """Return a sentence for each of the commonest reasons why records were left out."""
        return [f"left out {count:,}: {why}" for why, count in self.left_out.shown().items()]


def printed_count(number: float) -> str:
    """Return a number of requests, without decimals unless it is small."""
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
