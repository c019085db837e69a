"""What an update changes, read from files as people have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.sources.tabular import CandidateRows, read_candidates, read_table
from shortlist.export.own.vectors import EMBEDDING_COLUMN

__all__ = ["LIKE_COLUMN", "Changes", "ChangesConfig", "positions_of", "read_changes", "read_ids"]

LIKE_COLUMN = "like"
_TABLES = (".csv", ".tsv", ".parquet", ".feather", ".arrow", ".jsonl", ".json")


@dataclass(frozen=True, kw_only=True)
class ChangesConfig:
    """Files of an update; each may be missing.

    Attributes:
        candidates: New candidates, and known ones whose description changed.
        attributes: Attributes of known candidates.
        remove: Ids of candidates to remove, one per line or in a column.
        interactions: Interactions since the parent version.
        forget_users: Ids of users to forget, one per line or in a column.
        data: How the files are read; sources in it do not count.
    """

    candidates: Path | None = None
    attributes: Path | None = None
    remove: Path | None = None
    interactions: tuple[str, ...] = ()
    forget_users: Path | None = None
    data: DataConfig = field(default_factory=lambda: DataConfig(source="sample"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Changes:
    """Contents of the files of an update.

    Attributes:
        candidates: New candidates, and known ones to describe anew; None for none.
        attributes: Known candidates to describe anew; None for none.
        removed: Ids of candidates to remove.
        interactions: Interactions since the parent version; None for none.
        forgotten: Ids of users to forget.
    """

    candidates: CandidateRows | None = None
    attributes: CandidateRows | None = None
    removed: Sequence[str] = ()
    interactions: Dataset | None = None
    forgotten: Sequence[str] = ()

    def with_removed(self, ids: Sequence[str]) -> "Changes":
        """Return these changes with further candidates to remove."""
        return replace(self, removed=list(dict.fromkeys([*self.removed, *ids])))

    def __bool__(self) -> bool:
        """Return whether there is anything to change."""
        return any(
            (self.candidates, self.attributes, self.removed, self.interactions, self.forgotten)
        )


def read_changes(config: ChangesConfig, known: Mapping[str, Attribute]) -> Changes:
    """Read the files of an update.

    Args:
        config: Files.
        known: Attributes of the parent version, whose types the files must have.

    Raises:
        DataError: A file is missing or faulty; the message names row, column and remedy.
    """
    data = replace(
        config.data,
        candidates_file=None,
        users_file=None,
        unknown_candidates="error",
        more_sources=(),
        context_columns=(),
        text_columns=(),
    )
    interactions = None
    if config.interactions:
        first, *more = config.interactions
        interactions = read_table(replace(data, source=first, more_sources=tuple(more)))
    return Changes(
        candidates=_candidates(config.candidates, data, known, (EMBEDDING_COLUMN, LIKE_COLUMN)),
        attributes=_candidates(config.attributes, data, known, ()),
        removed=() if config.remove is None else read_ids(config.remove, "candidates", data),
        interactions=interactions,
        forgotten=(
            () if config.forget_users is None else read_ids(config.forget_users, "users", data)
        ),
    )


def _candidates(
    path: Path | None, data: DataConfig, known: Mapping[str, Attribute], special: Sequence[str]
) -> CandidateRows | None:
    if path is None:
        return None
    texts = [name for name, attribute in known.items() if attribute.values is not None]
    rows = read_candidates(path, data, special=special, texts=texts)
    for name, attribute in rows.attributes.items():
        before = known.get(name)
        if before is None or before.numbers is None or attribute.numbers is not None:
            continue
        texts = [cell[0] for cell in attribute.values or () if cell and not _is_number(cell[0])]
        if texts:
            raise DataError(
                f"{path}: {name!r} is a number in the parent version, and {texts[0]!r} here; "
                "correct the column, or leave it out"
            )
    missing = {
        name: Attribute(numbers=np.full(len(rows.ids), np.nan))
        for name, attribute in rows.attributes.items()
        if name in known and known[name].numbers is not None and attribute.numbers is None
    }
    return replace(rows, attributes={**rows.attributes, **missing})


def read_ids(path: Path, what: Literal["candidates", "users"], data: DataConfig) -> list[str]:
    """Read ids from a text file with one per line, or from the column of a table.

    Args:
        path: File.
        what: `users` or `candidates`.
        data: Names of the columns.

    Raises:
        DataError: The file is missing, empty or has an id twice.
    """
    path = path.expanduser()
    if path.suffix.lower() in _TABLES:
        ids = list(read_candidates(path, data, key=what, attributes=False).ids)
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise DataError(f"no such file: {path}; check the path") from None
        except (OSError, UnicodeDecodeError) as exc:
            raise DataError(f"cannot read {path}: {exc}; give a text file of ids") from exc
        ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path} holds no ids; give one per line")
    return list(dict.fromkeys(ids))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def positions_of(ids: Sequence[str], corpus: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the position of each id in a corpus, int64 `[num_ids]`; -1 for unknown ids."""
    position = {key: number for number, key in enumerate(corpus)}
    return np.array([position.get(key, -1) for key in ids], np.int64)
