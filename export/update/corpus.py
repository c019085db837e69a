"""The corpus after an update: who stays, who comes, and what is said about them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.change import CorpusChange
from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute
from shortlist.export.data.sources.tabular import CandidateRows
from shortlist.export.update.changes import Changes
from shortlist.export.update.parent import Catalogue

__all__ = ["NextCorpus", "next_corpus"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NextCorpus:
    """A corpus after an update.

    Attributes:
        change: Candidates that stay, and the number of new ones.
        catalogue: All candidates.
        new: Rows of the file of candidates that hold the new ones, in their order.
        described: Number of known candidates whose title or attributes changed.
        barred: Ids that were removed before, and left out.
    """

    change: CorpusChange
    catalogue: Catalogue
    new: npt.NDArray[np.int64]
    described: int
    barred: Sequence[str]


def next_corpus(before: Catalogue, changes: Changes, barred: Collection[str]) -> NextCorpus:
    """Return the corpus after an update.

    Args:
        before: Corpus of the parent version.
        changes: What to change.
        barred: Ids that were removed earlier and must not come back.

    Raises:
        DataError: An id to remove or describe is unknown, an id is both removed and described,
            or nothing would be left.
    """
    position = {key: number for number, key in enumerate(before.ids)}
    removed = _removed(position, changes, barred)
    kept = np.flatnonzero(~np.isin(np.arange(len(before.ids)), removed))
    rows, left_out = _new_rows(position, changes.candidates, barred)
    if not len(kept) and not len(rows):
        raise DataError("the update would remove all candidates; an index needs at least one")
    ids = [before.ids[row] for row in kept.tolist()]
    titles = [before.titles[row] for row in kept.tolist()]
    new = changes.candidates
    if new is not None:
        ids += [new.ids[row] for row in rows.tolist()]
        titles += [_title(new, row) for row in rows.tolist()]
    place = {key: number for number, key in enumerate(ids)}
    attributes = {
        name: _Column(attribute, kept, len(rows)) for name, attribute in before.attributes.items()
    }
    named = set[str]()
    for source in (new, changes.attributes):
        if source is None:
            continue
        unknown = [key for key in source.ids if key not in place and key not in left_out]
        if unknown:
            raise DataError(
                f"{source.rows.name}: candidate {unknown[0]!r} is not in the parent version"
                f"{_others(unknown)}; add it with --candidates, or remove the row"
            )
        places = np.array([place.get(key, -1) for key in source.ids], np.int64)
        named |= {key for key in source.ids if key in position and key in place}
        for key, title in zip(source.ids, source.titles or (), strict=False):
            if title and key in place:
                titles[place[key]] = title
        for name, attribute in source.attributes.items():
            column = attributes.setdefault(name, _Column.empty(attribute, len(ids)))
            column.set(places, attribute)
    after = Catalogue(
        ids=ids,
        titles=titles,
        attributes={name: column.attribute() for name, column in attributes.items()},
    )
    return NextCorpus(
        change=CorpusChange(before=len(before.ids), kept=kept, added=len(rows)),
        catalogue=after,
        new=rows,
        described=sum(_differs(before, position[key], after, place[key]) for key in named),
        barred=left_out,
    )


def _differs(before: Catalogue, row: int, after: Catalogue, place: int) -> bool:
    """Return True if a candidate has another title or attribute after than before."""
    return before.titles[row] != after.titles[place] or any(
        _cell(before.attributes.get(name), row) != _cell(attribute, place)
        for name, attribute in after.attributes.items()
    )


def _cell(attribute: Attribute | None, row: int) -> float | tuple[str, ...]:
    """Return the value of a candidate; `()` for none."""
    if attribute is None:
        return ()
    if attribute.numbers is not None:
        number = float(attribute.numbers[row])
        return () if np.isnan(number) else number
    assert attribute.values is not None
    return attribute.values[row]


class _Column:
    """An attribute whose rows change."""

    def __init__(self, before: Attribute, kept: npt.NDArray[np.int64], added: int) -> None:
        self._numbers: npt.NDArray[np.float64] | None = None
        self._values: list[tuple[str, ...]] = []
        if before.numbers is not None:
            self._numbers = np.append(before.numbers[kept], np.full(added, np.nan))
        else:
            assert before.values is not None
            self._values = [before.values[row] for row in kept.tolist()] + [()] * added

    @classmethod
    def empty(cls, like: Attribute, count: int) -> "_Column":
        """Return a column of the same type without values."""
        return cls(like, np.empty(0, np.int64), count)

    def set(self, places: npt.NDArray[np.int64], new: Attribute) -> None:
        """Set the rows at places; those at -1 are not in the corpus."""
        if self._numbers is not None:
            assert new.numbers is not None
            self._numbers[places[places >= 0]] = new.numbers[places >= 0]
            return
        assert new.values is not None
        for row, value in zip(places.tolist(), new.values, strict=True):
            if row >= 0:
                self._values[row] = value

    def attribute(self) -> Attribute:
        """Return the attribute."""
        if self._numbers is not None:
            return Attribute(numbers=self._numbers)
        return Attribute(values=tuple(self._values))


def _removed(
    position: Mapping[str, int], changes: Changes, barred: Collection[str]
) -> npt.NDArray[np.int64]:
    unknown = [key for key in changes.removed if key not in position and key not in barred]
    if unknown:
        raise DataError(
            f"candidate {unknown[0]!r}, which is to be removed, is not in the parent version"
            f"{_others(unknown)}; correct the id, or leave it out"
        )
    for source in (changes.candidates, changes.attributes):
        both = set(changes.removed) & set(() if source is None else source.ids)
        if source is not None and both:
            raise DataError(
                f"candidate {min(both)!r} is to be removed, and is in {source.rows.name}"
                f"{_others(sorted(both))}; decide for one"
            )
    return np.array(sorted({position[key] for key in changes.removed if key in position}), np.int64)


def _new_rows(
    position: Mapping[str, int], source: CandidateRows | None, barred: Collection[str]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the rows of new candidates, and the ids of those that must not come back."""
    if source is None:
        return np.empty(0, np.int64), []
    new = [row for row, key in enumerate(source.ids) if key not in position]
    left_out = [source.ids[row] for row in new if source.ids[row] in barred]
    return np.array([row for row in new if source.ids[row] not in barred], np.int64), left_out


def _title(source: CandidateRows, row: int) -> str:
    return "" if source.titles is None else source.titles[row]


def _others(ids: Sequence[str]) -> str:
    return f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
