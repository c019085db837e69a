"""Held-out interactions that neither of two versions was trained on, and questions about them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shortlist.export.data.fingerprint import hash_ids
from shortlist.serving.repository.probe import Interaction, SampledUser, UserSample

__all__ = ["Event", "JudgedUser", "Version", "judged_as_served", "judged_by_id"]

_MOST_QUESTIONS = 10  # for one user, each with the history before a held-out interaction

Event = tuple[str, int | None]  # candidate id and time
Version = tuple[UserSample, Sequence[str]]  # what a version was trained on, and its corpus


@dataclass(frozen=True, kw_only=True)
class JudgedUser:
    """A question for a user with comparable interactions.

    Attributes:
        user_id: User id.
        exclude: Candidate ids that neither version may return.
        held_out: Candidate id of each comparable interaction.
        history: Everything that the user did before, oldest first; empty if requests carry the
            user id instead.
    """

    user_id: str
    exclude: tuple[str, ...] = ()
    held_out: tuple[str, ...]
    history: tuple[Event, ...] = ()

    @property
    def width(self) -> int:
        """Number of candidate ids in the request."""
        return max(len(self.exclude), len(self.history))


class _Common(NamedTuple):
    """A user whose part in both trainings is known."""

    user_id: str
    fitted: list[Event]
    held_out: list[Event]
    given: list[Event]
    live_fitted: list[Event]


def judged_by_id(own: Version, live: Version, *, exclude: bool) -> Iterator[list[JudgedUser]]:
    """Yield a question for each user with interactions that neither version was trained on.

    Args:
        own: The new version.
        live: The live version.
        exclude: Whether answers leave out what either version was trained on.
    """
    for user in _common_users(own, live):
        fitted = [*user.fitted, *user.live_fitted]
        seen = {candidate for candidate, _ in fitted} if exclude else ()
        comparable = _comparable(user.held_out, fitted, by_candidate=exclude)
        if comparable:
            judged = JudgedUser(
                user_id=user.user_id, exclude=tuple(sorted(seen)), held_out=comparable
            )
            yield [judged]


def judged_as_served(own: Version, live: Version, *, exclude: bool) -> Iterator[list[JudgedUser]]:
    """Yield the questions for each user, with the history before them.

    A user whose other interactions were given gets one question; others get one for each
    held-out interaction, up to a limit, as the split by time asks.

    Args:
        own: The new version.
        live: The live version.
        exclude: Whether answers leave out what is in the history.
    """
    for user in _common_users(own, live):
        before = sorted([*user.fitted, *user.given], key=_time)
        held_out = sorted(user.held_out, key=_time)
        asked = [(before, held_out)]
        if not user.given:
            asked = [
                ([*before, *held_out[:number]], [event]) for number, event in enumerate(held_out)
            ]
        questions = [
            JudgedUser(user_id=user.user_id, held_out=comparable, history=tuple(history))
            for history, events in asked
            if (
                comparable := _comparable(
                    events,
                    [*user.live_fitted, *(history if exclude else ())],
                    by_candidate=exclude,
                )
            )
        ]
        if questions:
            yield questions[:_MOST_QUESTIONS]


def _common_users(own: Version, live: Version) -> Iterator[_Common]:
    (sample, corpus), (live_sample, live_corpus) = own, live
    hashes = hash_ids(list(sample.users)).tolist()
    for (user_id, user), user_hash in zip(sample.users.items(), hashes, strict=True):
        if user_hash < live_sample.bound and user_id not in live_sample.left_out:
            live_fitted = live_sample.users.get(user_id, SampledUser()).fitted
            yield _Common(
                user_id=user_id,
                fitted=_by_id(user.fitted, corpus),
                held_out=_by_id(user.held_out, corpus),
                given=_by_id(user.given, corpus),
                live_fitted=_by_id(live_fitted, live_corpus),
            )


def _comparable(
    events: Sequence[Event], fitted: Sequence[Event], *, by_candidate: bool
) -> tuple[str, ...]:
    """Return the candidates of the events that are not fitted, or whose candidate is not.

    Without times, a repeated interaction cannot be told from one with the same candidate.
    """
    if by_candidate or any(time is None for _, time in (*fitted, *events)):
        seen = {candidate for candidate, _ in fitted}
        return tuple(candidate for candidate, _ in events if candidate not in seen)
    rows = set(fitted)
    return tuple(event[0] for event in events if event not in rows)


def _by_id(interactions: Iterable[Interaction], corpus: Sequence[str]) -> list[Event]:
    return [(corpus[position], time) for position, time in interactions]


def _time(event: Event) -> int:
    return event[1] or 0
