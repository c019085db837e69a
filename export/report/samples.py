"""Sample users of a report: their histories and recommendations."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shortlist.export.config import Protocol
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.ranking import Scorer
from shortlist.export.report.content import SampleUser, Shown

__all__ = ["sample_users"]

_SHOWN = 10  # candidates in either list
_LONGEST = 200  # characters of a title or an attribute


def sample_users(
    dataset: Dataset,
    split: Split,
    scorer: Scorer,
    *,
    unknown_user_scores: npt.NDArray[np.float32] | None,
    protocol: Protocol,
    seed: int,
) -> list[SampleUser]:
    """Return the most, median and least active user, a random one and an unknown user.

    All but the unknown user have interactions in both parts. Fewer are returned if there are
    fewer such users.

    Args:
        dataset: Interactions.
        split: Split of the interactions; all but the held-out ones are the users' histories.
        scorer: Scores that recommendations are ranked by.
        unknown_user_scores: Float32 `[num_candidates]`; `None` to omit the unknown user.
        protocol: Protocol of the recommendations: with or without the users' histories.
        seed: Random seed of the random user.
    """
    activity = np.bincount(dataset.user_positions[split.fitted], minlength=len(dataset.user_ids))
    judged = np.unique(dataset.user_positions[split.held_out])
    judged = judged[activity[judged] > 0]
    # Most active first; equally active ones by position.
    judged = judged[np.argsort(-activity[judged], kind="stable")]
    chosen: dict[int, str] = {}
    if len(judged):
        chosen[int(judged[0])] = "The most active user"
        chosen.setdefault(int(judged[len(judged) // 2]), "A user of median activity")
        chosen.setdefault(int(judged[-1]), "One of the least active users")
        rest = [int(user) for user in judged if int(user) not in chosen]
        if rest:
            at_random = rest[int(np.random.default_rng(seed).integers(len(rest)))]
            chosen[at_random] = "A user picked at random"
    samples = [
        _known(dataset, split, scorer, user, kind, protocol) for user, kind in chosen.items()
    ]
    if unknown_user_scores is not None:
        samples.append(
            SampleUser(
                kind="An unknown user",
                user_id=None,
                num_interactions=0,
                num_held_out=0,
                history=(),
                recommendations=[
                    _shown(dataset, int(candidate)) for candidate in _best(unknown_user_scores, [])
                ],
            )
        )
    return samples


def _known(
    dataset: Dataset, split: Split, scorer: Scorer, user: int, kind: str, protocol: Protocol
) -> SampleUser:
    mine = split.fitted[dataset.user_positions[split.fitted] == user]
    held_out = split.held_out[dataset.user_positions[split.held_out] == user]
    excluded = mine if protocol == "seen_excluded" else mine[:0]
    left_out = dataset.candidate_positions[excluded]
    held_out = held_out[~np.isin(dataset.candidate_positions[held_out], left_out)]
    held_out_candidates = set(dataset.candidate_positions[held_out].tolist())
    scores = scorer(np.array([user], np.int32))[0]
    return SampleUser(
        kind=kind,
        user_id=dataset.user_ids[user],
        num_interactions=len(mine),
        num_held_out=len(held_out),
        history=[
            _shown(
                dataset,
                int(dataset.candidate_positions[row]),
                rating=None if dataset.ratings is None else float(dataset.ratings[row]),
            )
            for row in _best_liked(dataset, mine)[:_SHOWN]
        ],
        recommendations=[
            _shown(dataset, candidate, chosen=candidate in held_out_candidates)
            for candidate in _best(scores, left_out.tolist())
        ],
    )


def _best_liked(dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Interactions by descending rating, then time, then position."""
    keys: list[npt.NDArray[np.float64]] = [-rows.astype(np.float64)]
    if dataset.timestamps is not None:
        keys.append(-dataset.timestamps[rows].astype(np.float64))
    if dataset.ratings is not None:
        keys.append(-dataset.ratings[rows].astype(np.float64))
    return rows[np.lexsort(keys)]


def _best(scores: npt.NDArray[np.float32], excluded: Sequence[int]) -> list[int]:
    """Best candidates except some, best first; equal scores by position."""
    others = scores.copy()
    others[np.asarray(excluded, np.int64)] = -np.inf
    order = np.argsort(-others, kind="stable")[:_SHOWN]
    return [int(candidate) for candidate in order if np.isfinite(others[candidate])]


def _shown(
    dataset: Dataset, candidate: int, *, rating: float | None = None, chosen: bool = False
) -> Shown:
    parts = [_value(attribute, candidate) for attribute in dataset.attributes.values()]
    return Shown(
        title=_cut(dataset.titles[candidate] or dataset.candidate_ids[candidate]),
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
