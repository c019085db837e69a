"""Answers for the page: what a user had, gets, what is similar, and why."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from shortlist.clients.cli.histories import Asked
from shortlist.clients.cli.query import notes
from shortlist.clients.errors import ShortlistError
from shortlist.serving.ui.catalogue import Catalogue, Item
from shortlist.serving.ui.question import Question
from shortlist.serving.ui.site import Abilities, Site, Target

__all__ = ["Answer", "answer", "had", "moves", "reasons", "similar"]

_T = TypeVar("_T")
_SHOWN: Final = 15  # events of a user
_EVENTS: Final = 20  # newest events that can be a reason
_NEAR: Final = 50  # most similar candidates of an event that it can be a reason for
_REASONS: Final = 2  # of one candidate


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A list, or the reason why there is none.

    Attributes:
        items: Candidates, in order.
        version: Version that answered; `None` if unknown.
        milliseconds: Time of the call as the client measured it.
        notes: What the list does not show.
        problem: Error with its remedy; empty if there is none.
        total: Number of candidates of which `items` are the first.
    """

    items: Sequence[Item] = ()
    version: int | None = None
    milliseconds: float | None = None
    notes: Sequence[str] = field(default_factory=list)
    problem: str = ""
    total: int = 0


def answer(site: Site, question: Question, target: Target, catalogue: Catalogue) -> Answer:
    """Return what a user gets from one target; errors are part of the answer."""
    try:
        can = Abilities.of(site.metadata(target))
        asked = _asked(question)
        options = _options(question, can, catalogue, with_history="history" in asked)
        milliseconds, (retrieval,) = _timed(
            lambda: site.client.retrieve(
                **asked,
                **options,
                k=question.number(),
                model=target.model,
                version=target.version,
                label=target.label,
            )
        )
    except (ShortlistError, ValueError) as exc:
        return Answer(problem=str(exc))
    return Answer(
        items=_items(retrieval, catalogue),
        version=retrieval.version,
        milliseconds=milliseconds,
        notes=[_sentence(note) for note in notes([retrieval], asked)],
    )


def similar(site: Site, candidate_id: str, k: int, target: Target, catalogue: Catalogue) -> Answer:
    """Return the most similar candidates of a candidate; errors are part of the answer."""
    try:
        milliseconds, (found,) = _timed(
            lambda: site.client.similar(
                [candidate_id],
                k=k,
                model=target.model,
                version=target.version,
                label=target.label,
            )
        )
    except (ShortlistError, ValueError) as exc:
        return Answer(problem=str(exc))
    unknown = [f"The corpus does not contain {candidate_id!r}."]
    return Answer(
        items=_items(found, catalogue),
        version=found.version,
        milliseconds=milliseconds,
        notes=unknown if found.known_candidate is False else [],
    )


def had(user_id: str, catalogue: Catalogue) -> Answer:
    """Return what the version's files tell of a user's interactions, newest first."""
    events = catalogue.events(user_id)
    items = [
        replace(
            catalogue.item(event.candidate_id),
            note=" · ".join(filter(None, (_day(event.time), "held out" if event.held_out else ""))),
        )
        for event in events[:_SHOWN]
    ]
    return Answer(items=items, total=len(events))


def reasons(
    site: Site, got: Answer, question: Question, target: Target, catalogue: Catalogue
) -> Answer:
    """Return an answer with the events that each candidate is similar to.

    The events are those of the request, or else the user's newest that the version was trained
    on. An event is a reason for candidates among its most similar ones, by the signature
    `similar`; nothing else in a servable tells why.
    """
    events = list(dict.fromkeys(question.history[::-1])) or [
        event.candidate_id for event in catalogue.events(question.user) if not event.held_out
    ]
    if not events or not got.items:
        return got
    try:
        ranked = site.client.similar(
            events[:_EVENTS],
            k=_NEAR,
            model=target.model,
            version=target.version,
            label=target.label,
        )
    except ShortlistError as exc:
        return replace(got, notes=[*got.notes, f"Reasons are missing: {exc}"])
    near: dict[str, list[tuple[int, str]]] = {}
    for event in ranked:
        for rank, candidate_id in enumerate(event.candidate_ids, 1):
            near.setdefault(candidate_id, []).append((rank, catalogue.title(event.candidate_id)))
    items = [
        replace(
            item,
            why=tuple(
                (title, rank) for rank, title in sorted(near.get(item.candidate_id, []))[:_REASONS]
            ),
        )
        for item in got.items
    ]
    return replace(got, items=items)


def moves(ours: Answer, theirs: Answer) -> Answer:
    """Return an answer whose candidates know how far they moved from another's list."""
    ranks = {item.candidate_id: rank for rank, item in enumerate(theirs.items)}
    items = [
        replace(item, moved=ranks[item.candidate_id] - rank) if item.candidate_id in ranks else item
        for rank, item in enumerate(ours.items)
    ]
    return replace(ours, items=items)


def _asked(question: Question) -> Asked:
    """Return the arguments of `retrieve` that say who asks."""
    asked = Asked(user_ids=[question.user])
    if question.history:
        asked["history"] = [list(question.history)]
    if question.features:
        asked["features"] = [question.feature_values()]
    return asked


def _options(
    question: Question, can: Abilities, catalogue: Catalogue, *, with_history: bool
) -> Mapping[str, Any]:
    options: dict[str, Any] = {"exclude": list(question.exclude) or None}
    options["filter"] = question.filter(catalogue.attributes)
    options["exclude_seen"] = question.seen and can.seen
    if with_history:
        options["exclude_history"] = not question.repeat
    return options


def _timed(call: Callable[[], _T]) -> tuple[float, _T]:
    began = time.perf_counter()
    result = call()
    return (time.perf_counter() - began) * 1e3, result


def _items(ranking: Any, catalogue: Catalogue) -> list[Item]:
    return [replace(catalogue.item(candidate_id), score=score) for candidate_id, score in ranking]


def _day(seconds: int | None) -> str:
    if seconds is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (OverflowError, OSError, ValueError):  # no calendar has it
        return str(seconds)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
