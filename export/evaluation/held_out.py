"""What the held-out part can tell: how much of it repeats what training has seen."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from shortlist.export.config import Protocol
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import Questions, held_out_questions
from shortlist.export.data.split import Split

__all__ = ["HeldOut", "held_out_facts"]

_MANY_REPEATS: Final = 0.2  # share from which data says that users come back to candidates


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Size of the held-out part.

    Attributes:
        interactions: Number of held-out interactions.
        users: Number of their users.
        repeats: Number of held-out interactions whose candidate the user had before. No answer
            without seen candidates contains them.
        as_served: Whether requests carried what the user did before.
        weighted: Whether metrics count an interaction by its weight.
        drawn_from: Number of questions that those asked were drawn from; None if all were asked.
    """

    interactions: int
    users: int
    repeats: int
    as_served: bool = False
    weighted: bool = False
    drawn_from: int | None = None

    @classmethod
    def of(cls, questions: Questions) -> "HeldOut":
        """Return the size of the part that judges the answers to some questions."""
        return cls(
            interactions=len(questions.interactions),
            users=len(np.unique(questions.users)),
            repeats=int(questions.repeats.sum()),
            as_served=questions.as_served,
            weighted=questions.weights is not None,
            drawn_from=questions.drawn_from if questions.drawn_from > len(questions) else None,
        )

    def counted(self, protocol: Protocol) -> int:
        """Return how many of the interactions a metric by this protocol counts."""
        return self.interactions - (self.repeats if protocol == "seen_excluded" else 0)

    def check(self, protocol: Protocol) -> None:
        """Check that something can be hit.

        Raises:
            ValueError: Seen candidates are excluded, and all held-out interactions repeat one.
        """
        if not self.counted(protocol):
            raise ValueError(
                "nothing to evaluate on with seen candidates excluded: "
                f"all {self.interactions} held-out interactions are with candidates that the "
                "user had before; use --protocol seen_kept"
            )

    def __str__(self) -> str:
        text = f"{self.interactions:,} held-out interactions of {self.users:,} users"
        if self.repeats:
            text = (
                f"{self.repeats:,} of {self.interactions:,} held-out interactions are with "
                'candidates that the user had before; "seen excluded" counts the other '
                f"{self.interactions - self.repeats:,}"
            )
        if self.as_served:
            text += "; asked as served: each request carried what the user did before"
        if self.weighted:
            text += "; counted by their weights"
        if self.drawn_from is not None:
            text += f"; a random sample of {self.drawn_from:,} questions"
        return text

    def advice(self, protocol: Protocol, *, seen_last: bool = False) -> str | None:
        """Return advice on the protocol and the recipe, or None if they fit the data.

        Args:
            protocol: Protocol that applications ask by.
            seen_last: Whether the recipe teaches the model to rank seen candidates last.
        """
        share = self.repeats / self.interactions
        if share <= _MANY_REPEATS or not (seen_last or protocol == "seen_excluded"):
            return None
        what = f"{share:.0%} of the held-out interactions are with candidates that the user had "
        if seen_last:
            return (
                f"{what}before, and this recipe ranks those last (seen_last_epochs); if "
                "applications may show them again, use --preset default --protocol seen_kept"
            )
        return f"{what}before; if applications may show those again, use --protocol seen_kept"


def held_out_facts(dataset: Dataset, split: Split) -> HeldOut:
    """Return the size of the held-out part.

    Raises:
        ValueError: Nothing is held out.
    """
    return HeldOut.of(held_out_questions(dataset, split))
