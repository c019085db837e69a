"""What the held-out part can tell: how much of it repeats what training has seen."""

from dataclasses import dataclass
from typing import Final

from shortlist.export.config import Protocol
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split

__all__ = ["HeldOut", "held_out_facts"]

_MANY_REPEATS: Final = 0.2  # share from which data says that users come back to candidates


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Size of the held-out part.

    Attributes:
        interactions: Number of held-out interactions.
        users: Number of their users.
        repeats: Number of held-out interactions whose candidate the user has in the training
            part, too. No answer without seen candidates contains them.
    """

    interactions: int
    users: int
    repeats: int

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
                f"all {self.interactions} held-out interactions repeat a candidate of the user's "
                "training part; use --protocol seen_kept"
            )

    def __str__(self) -> str:
        text = f"{self.interactions:,} held-out interactions of {self.users:,} users"
        if self.repeats:
            text = (
                f"{self.repeats:,} of {self.interactions:,} held-out interactions repeat a "
                'candidate of the user\'s training part; "seen excluded" counts the other '
                f"{self.interactions - self.repeats:,}"
            )
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
    """Return the size of the held-out part, with the repeats of the fitted part.

    Raises:
        ValueError: Nothing is held out.
    """
    if not len(split.held_out):
        raise ValueError(f"{dataset.name} has no held-out interactions to evaluate on")
    users = dataset.user_positions[split.held_out]
    fitted = Pairs.by_user(dataset, split.fitted, distinct=True)
    repeats = fitted.contain(users, dataset.candidate_positions[split.held_out])
    return HeldOut(
        interactions=len(users),
        users=int((dataset.user_counts(split.held_out) > 0).sum()),
        repeats=int(repeats.sum()),
    )
