"""Questions that evaluate a model: who asks, what the server knows then, what was chosen."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shortlist.export.config import SplitMethod
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories, time_order
from shortlist.export.data.split import Split

__all__ = ["Questions", "held_out_questions", "validation_questions"]

Positions = npt.NDArray[np.int64]

# Of the held-out part: minutes with 500 dimensions. A share is then known to 0.005 at worst.
_MOST_SCORES, _FEWEST_QUESTIONS = 10_000_000_000, 10_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Questions in the order of users, then of time, with the interactions that judge the answers.

    Attributes:
        method: Method of the split, which decides what is asked.
        users: int32 `[num_questions]`, position in `user_ids` of the user who asks.
        known: bool `[num_questions]`, whether the model has met the user; others ask as unknown
            users.
        timelines: Events of all users, which the histories are parts of.
        starts: int64 `[num_questions]`, place in the timelines of the first event before.
        stops: int64 `[num_questions]`, place after the last one.
        owners: int64 `[num_judged]`, ascending, question of each judged interaction.
        interactions: int64 `[num_judged]`, positions of the judged interactions in the data.
        candidates: int32 `[num_judged]`, their candidates.
        weights: float32 `[num_judged]`, what each judged interaction counts; None if all count 1.
        drawn_from: Number of questions that these are a sample of, or their own number.
    """

    method: SplitMethod
    users: npt.NDArray[np.int32]
    known: npt.NDArray[np.bool_]
    timelines: Histories
    starts: Positions
    stops: Positions
    owners: Positions
    interactions: Positions
    candidates: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None = None
    drawn_from: int

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.users)

    @property
    def histories(self) -> Histories:
        """Events before each question: those that a servable keeps, then those of the request.

        Computed at each access. The histories of many questions of the same users take much more
        memory than the timelines; `take` some questions first.
        """
        return self.timelines.between(self.starts, self.stops)

    @property
    def askers(self) -> npt.NDArray[np.int32]:
        """User of each question, -1 if unknown to the model, int32 `[num_questions]`."""
        return np.where(self.known, self.users, np.int32(-1))

    @property
    def as_served(self) -> bool:
        """Whether requests have to carry the histories, which servables do not keep."""
        return self.method in ("global_time", "new_users")

    @cached_property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """Whether each judged candidate is in the history of its question, `[num_judged]`."""
        width = self.timelines.num_candidates
        # np.unique returns the first place of each pair, and timelines are in the order of time.
        pairs, places = np.unique(
            self.timelines.owners * width + self.timelines.events.columns, return_index=True
        )
        judged = self.users[self.owners].astype(np.int64) * width + self.candidates
        at = np.searchsorted(pairs, judged)
        found = at < len(pairs)
        found[found] = pairs[at[found]] == judged[found]
        found[found] = places[at[found]] < self.stops[self.owners[found]]
        return found

    def take(self, rows: npt.NDArray[np.integer]) -> "Questions":
        """Return some of the questions, with their judged interactions."""
        first = np.searchsorted(self.owners, rows)
        counts = np.searchsorted(self.owners, rows, side="right") - first
        ends = np.cumsum(counts)
        judged = np.repeat(first - (ends - counts), counts) + np.arange(counts.sum())
        return replace(
            self,
            users=self.users[rows],
            known=self.known[rows],
            starts=self.starts[rows],
            stops=self.stops[rows],
            owners=np.repeat(np.arange(len(rows)), counts),
            interactions=self.interactions[judged],
            candidates=self.candidates[judged],
            weights=None if self.weights is None else self.weights[judged],
        )


def held_out_questions(dataset: Dataset, split: Split) -> Questions:
    """Return the questions of the held-out part, asked as the method of the split asks.

    `random` asks once per user, who has all fitted interactions before. `global_time` and
    `leave_last_out` ask for each held-out interaction, with everything the user did before it.
    `new_users` asks once per held-out user, with the interactions given in the request. If all
    answers would take more than `_MOST_SCORES` scores, a random sample is asked.

    Raises:
        ValueError: Nothing is held out.
    """
    if not len(split.held_out):
        raise ValueError(f"{dataset.name} has no held-out interactions to evaluate on")
    fitted = split.fitted
    before = np.concatenate([fitted, split.given])
    most = max(_MOST_SCORES // len(dataset.candidate_ids), _FEWEST_QUESTIONS)
    questions = _questions(dataset, split, fitted=fitted, before=before, judged=split.held_out)
    return _sample(questions, most, seed=0)


def validation_questions(
    dataset: Dataset, split: Split, *, most: int | None = None, seed: int = 0
) -> Questions:
    """Return the questions of the validation part to a model of the training part.

    They are asked as `held_out_questions` are.

    Args:
        dataset: Interactions that `split` refers to.
        split: Split with a validation part.
        most: Number of questions, at most, of which a sample is drawn; None for all.
        seed: Random seed of the sample.

    Raises:
        ValueError: There is no validation part.
    """
    if not len(split.validation):
        raise ValueError(f"{dataset.name} has no validation part; set validation_fraction above 0")
    before = np.concatenate([split.training, split.validation_given])
    questions = _questions(
        dataset, split, fitted=split.training, before=before, judged=split.validation
    )
    return questions if most is None else _sample(questions, most, seed=seed)


def _sample(questions: Questions, most: int, *, seed: int) -> Questions:
    if len(questions) <= most:
        return questions
    sample = np.random.default_rng(seed).choice(len(questions), most, replace=False)
    return questions.take(np.sort(sample))


def _questions(
    dataset: Dataset, split: Split, *, fitted: Positions, before: Positions, judged: Positions
) -> Questions:
    one_each = split.method in ("leave_last_out", "global_time")
    order = time_order(dataset, np.concatenate([before, judged]) if one_each else before)
    timelines = Histories.in_order(dataset, order)
    interactions = time_order(dataset, judged)
    asking = dataset.user_positions[interactions]
    if one_each:
        users, owners = asking, np.arange(len(interactions))
        is_judged = np.zeros(dataset.num_interactions, np.bool_)
        is_judged[judged] = True
        stops = np.flatnonzero(is_judged[order])
    else:
        users, owners = np.unique(asking, return_inverse=True)
        stops = timelines.events.starts[users + 1]
    return Questions(
        method=split.method,
        users=users,
        known=(dataset.user_counts(fitted) > 0)[users],
        timelines=timelines,
        starts=timelines.events.starts[users],
        stops=stops,
        owners=owners,
        interactions=interactions,
        candidates=dataset.candidate_positions[interactions],
        weights=None if dataset.weights is None else dataset.weights[interactions],
        drawn_from=len(users),
    )
