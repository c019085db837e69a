"""Sample users of a report: their histories and recommendations."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from shortlist.export.config import Protocol
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.questions import Questions, held_out_questions
from shortlist.export.data.split import Split
from shortlist.export.report.content import SampleUser, Shown

__all__ = ["Scores", "sample_users", "show_candidate"]

# Scores of users by position (-1 if unknown) with everything that they did: float
# `[b, num_candidates]`.
Scores = Callable[[npt.NDArray[np.integer], Histories], npt.NDArray[np.floating]]

_SHOWN = 10  # candidates in either list
_LONGEST = 200  # characters of a title or an attribute
_SESSION = 5  # events of an unknown user's history


def sample_users(
    dataset: Dataset, split: Split, scores: Scores, *, protocol: Protocol, seed: int
) -> list[SampleUser]:
    """Return the most, median and least active user, a random one, and two unknown users.

    The first four have a history and held-out interactions; fewer are returned if there are
    fewer such users. Of the unknown ones, the first has the last events of the median user.

    Args:
        dataset: Interactions.
        split: Split of the interactions.
        scores: Scores that recommendations are ranked by.
        protocol: Protocol of the recommendations: with or without the users' histories.
        seed: Random seed of the random user.
    """
    questions = held_out_questions(dataset, split)
    chosen = _chosen(questions, seed)
    asked = questions.take(np.array(list(chosen), np.int64))
    samples = [
        _known(dataset, asked.take(np.array([place])), scores, kind, protocol)
        for place, kind in enumerate(chosen.values())
    ]
    nothing = questions.timelines.between(*np.zeros((2, 1), np.int64))
    session = asked.take(np.arange(min(len(asked), 2))[-1:]).histories.last(_SESSION)
    for kind, history in (
        ("An unknown user with a history", session),
        ("An unknown user", nothing),
    ):
        if len(history):
            events, row = history.events.columns, scores(np.array([-1]), history)[0]
            samples.append(_sample(dataset, kind, None, events, row, protocol))
    return samples


def _chosen(questions: Questions, seed: int) -> dict[int, str]:
    """Return the last question of some users, with the reason for the choice."""
    lengths = questions.stops - questions.starts
    last = np.append(questions.users[1:] != questions.users[:-1], True)
    rows = np.flatnonzero(last & (lengths > 0))
    # Most active first; equally active ones by position.
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    chosen: dict[int, str] = {}
    if len(rows):
        chosen[int(rows[0])] = "The most active user"
        chosen.setdefault(int(rows[len(rows) // 2]), "A user of median activity")
        chosen.setdefault(int(rows[-1]), "One of the least active users")
        rest = [int(row) for row in rows if int(row) not in chosen]
        if rest:
            at_random = rest[int(np.random.default_rng(seed).integers(len(rest)))]
            chosen[at_random] = "A user picked at random"
    return chosen


def _known(
    dataset: Dataset, question: Questions, scores: Scores, kind: str, protocol: Protocol
) -> SampleUser:
    """Return the user of one question."""
    user = int(question.users[0])
    ratings: dict[int, float] = {}
    if dataset.ratings is not None:
        own = np.flatnonzero(dataset.user_positions == user)
        candidates = dataset.candidate_positions[own].tolist()
        ratings = dict(zip(candidates, dataset.ratings[own].tolist(), strict=True))
    return _sample(
        dataset,
        kind if question.known[0] else f"{kind}, unknown to training",
        dataset.user_ids[user],
        question.histories.events.columns,
        scores(question.askers, question.histories)[0],
        protocol,
        held_out=question.candidates,
        ratings=ratings,
    )


def _sample(
    dataset: Dataset,
    kind: str,
    user_id: str | None,
    history: npt.NDArray[np.int32],
    scores: npt.NDArray[np.floating],
    protocol: Protocol,
    *,
    held_out: Sequence[int] | npt.NDArray[np.int32] = (),
    ratings: Mapping[int, float] | None = None,
) -> SampleUser:
    left_out = history if protocol == "seen_excluded" else history[:0]
    possible = np.asarray(held_out, np.int64)
    possible = possible[~np.isin(possible, left_out)]
    return SampleUser(
        kind=kind,
        user_id=user_id,
        num_interactions=len(history),
        num_held_out=len(possible),
        history=[
            _shown(dataset, candidate, rating=(ratings or {}).get(candidate))
            for candidate in history[::-1][:_SHOWN].tolist()
        ],
        recommendations=[
            _shown(dataset, candidate, chosen=candidate in possible)
            for candidate in _best(scores, left_out.tolist())
        ],
    )


def _best(scores: npt.NDArray[np.floating], excluded: Sequence[int]) -> list[int]:
    """Best candidates except some, best first; equal scores by position."""
    others = scores.copy()
    others[np.asarray(excluded, np.int64)] = -np.inf
    order = np.argsort(-others, kind="stable")[:_SHOWN]
    return [int(candidate) for candidate in order if np.isfinite(others[candidate])]


def _shown(
    dataset: Dataset, candidate: int, *, rating: float | None = None, chosen: bool = False
) -> Shown:
    title = dataset.titles[candidate] or dataset.candidate_ids[candidate]
    return show_candidate(title, dataset.attributes, candidate, rating=rating, chosen=chosen)


def show_candidate(
    title: str,
    attributes: Mapping[str, Attribute],
    candidate: int,
    *,
    rating: float | None = None,
    chosen: bool = False,
) -> Shown:
    """Return a candidate as readers see it.

    Args:
        title: Name of the candidate.
        attributes: Attributes of all candidates.
        candidate: Position of the candidate.
        rating: Rating by the user, if any.
        chosen: Whether the user's held-out part contains it.
    """
    parts = [_value(attribute, candidate) for attribute in attributes.values()]
    return Shown(
        title=_cut(title),
        attributes=_cut(" · ".join(part for part in parts if part)),
        rating=rating,
        chosen=chosen,
    )


def _value(attribute: Attribute, candidate: int) -> str:
    if attribute.values is not None:
        return ", ".join(attribute.values[candidate])
    assert attribute.numbers is not None
    number = float(attribute.numbers[candidate])
    return f"{number:.10g}" if np.isfinite(number) else ""


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
