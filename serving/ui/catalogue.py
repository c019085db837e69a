"""Candidates and users of a version, as far as its files tell."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from shortlist.serving.repository.probe import (
    Description,
    UserSample,
    read_corpus,
    read_descriptions,
    read_user_sample,
)
from shortlist.serving.repository.version import read_manifest

__all__ = ["NOTHING", "Catalogue", "Event", "Item", "read_catalogue"]


_VALUES: Final = 200  # suggestions
_NONE: Final = Description()


@dataclass(frozen=True, kw_only=True)
class Event:
    """One interaction of a user.

    Attributes:
        candidate_id: Candidate.
        time: Seconds since the epoch; `None` if unknown.
        held_out: Whether it was held out for metrics, so that the version does not know it.
    """

    candidate_id: str
    time: int | None
    held_out: bool


@dataclass(frozen=True, kw_only=True)
class Item:
    """A candidate in a list.

    Attributes:
        candidate_id: Candidate id.
        title: Title; the id if there is none.
        score: Score; `None` in a list without scores.
        attributes: Attributes of the candidate, as text.
        note: Short remark, such as a date.
        why: Events that it is similar to: title and rank among their most similar.
        moved: Rank in the other list minus this one; `None` if it is not there.
    """

    candidate_id: str
    title: str
    score: float | None = None
    attributes: str = ""
    note: str = ""
    why: tuple[tuple[str, int], ...] = ()
    moved: int | None = None


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Candidates and sampled users of a version.

    Attributes:
        ids: Candidate ids.
        sample: Users with their interactions; `None` if the version holds none.
        features: Names of the features that requests can give.
        keeps_seen: Whether the version can leave out what a user had.
        descriptions: Titles and attributes by candidate id.
    """

    ids: Sequence[str] = ()
    sample: UserSample | None = None
    features: Sequence[str] = ()
    keeps_seen: bool = False
    descriptions: Mapping[str, Description] = field(default_factory=dict)

    @cached_property
    def known(self) -> frozenset[str]:
        """The candidate ids."""
        return frozenset(self.ids)

    @cached_property
    def users(self) -> list[str]:
        """Ids of the sampled users, numbers in their order."""
        users = self.sample.users if self.sample else {}
        return sorted(users, key=lambda user: (len(user), user) if user.isdecimal() else (99, user))

    def title(self, candidate_id: str) -> str:
        """Return the title of a candidate; its id if there is none."""
        return self._described(candidate_id).title or candidate_id

    @cached_property
    def attributes(self) -> dict[str, bool]:
        """The candidates' attributes, sorted, and whether they are numbers."""
        kinds = {
            name: not isinstance(value, list)
            for description in self.descriptions.values()
            for name, value in description.attributes.items()
        }
        return dict(sorted(kinds.items()))

    @cached_property
    def values(self) -> list[str]:
        """The most frequent values of attributes with values, sorted."""
        counts = Counter(
            value
            for description in self.descriptions.values()
            for values in description.attributes.values()
            if isinstance(values, list)
            for value in values
        )
        return sorted(value for value, _ in counts.most_common(_VALUES))

    def _described(self, candidate_id: str) -> Description:
        return self.descriptions.get(candidate_id, _NONE)

    def item(self, candidate_id: str) -> Item:
        """Return a candidate for a list."""
        parts = [
            ", ".join(map(str, value)) if isinstance(value, list) else f"{value:.10g}"
            for value in self._described(candidate_id).attributes.values()
        ]
        attributes = " · ".join(filter(None, parts))
        return Item(
            candidate_id=candidate_id, title=self.title(candidate_id), attributes=attributes
        )

    def search(self, text: str, limit: int) -> tuple[list[str], int]:
        """Return the first candidates whose id or title contains a text, and how many do.

        Titles and ids that begin with the text come first; upper and lower case are the same.
        """
        wanted = text.strip().casefold()
        first, other = [], []
        for candidate_id in self.ids:
            names = {candidate_id.casefold(), self.title(candidate_id).casefold()}
            if any(name.startswith(wanted) for name in names):
                first.append(candidate_id)
            elif any(wanted in name for name in names):
                other.append(candidate_id)
        found = first + other
        return found[:limit], len(found)

    def search_users(self, text: str, limit: int) -> list[str]:
        """Return the first sampled users whose id begins with a text."""
        return [user for user in self.users if user.startswith(text.strip())][:limit]

    def candidate(self, text: str) -> str:
        """Return the candidate that a person typed: by id, else by title, else the text itself."""
        if text in self.known:
            return text
        wanted = text.strip().casefold()
        titled = (id_ for id_ in self.ids if wanted in (id_.casefold(), self.title(id_).casefold()))
        return next(titled, text.strip())

    def events(self, user_id: str) -> list[Event]:
        """Return a sampled user's interactions, newest first; those of unknown time last."""
        user = self.sample.users.get(user_id) if self.sample else None
        if user is None:
            return []
        events = [
            Event(candidate_id=self.ids[position], time=time, held_out=held_out)
            for interactions, held_out in (
                (user.fitted, False),
                (user.given, False),
                (user.held_out, True),
            )
            for position, time in interactions
            if position < len(self.ids)
        ]
        return sorted(events, key=lambda event: -1 if event.time is None else event.time)[::-1]

    def named(self, candidate_ids: Iterable[str]) -> list[tuple[str, str]]:
        """Return ids with their titles."""
        return [(candidate_id, self.title(candidate_id)) for candidate_id in candidate_ids]


NOTHING: Final = Catalogue()


def read_catalogue(version_path: Path) -> Catalogue:
    """Return the catalogue in a version's folder; empty for a foreign SavedModel.

    Raises:
        RepositoryError: A file exists and cannot be read.
    """
    ids = read_corpus(version_path)
    if ids is None:
        return NOTHING
    manifest = read_manifest(version_path)
    return Catalogue(
        ids=ids,
        sample=read_user_sample(version_path),
        features=list(manifest.features) if manifest else (),
        keeps_seen=bool(manifest and manifest.config.get("keep_seen")),
        descriptions=dict(zip(ids, read_descriptions(version_path) or (), strict=False)),
    )
