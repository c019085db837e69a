"""Shares of users by version label, so that a canary needs no proxy."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from shortlist.clients._arguments import mapping, number, text, text_remedy

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """Shares of users by version label; pass it as `label` to `retrieve`.

    A user id always gets the same label, on every machine and in every process. Raising one
    label's share moves no user between the other labels if their order stays the same. Users
    of a label that the server does not have get the answers of `fallback`.

    A row without a user id is assigned by its history and features, so its next event may change
    its label. To keep the label of such a session, pass the session's id as the user id: unknown
    users with a history get lists of their own.

    Attributes:
        shares: Share of users by label; the sum is 1.
        fallback: Label for users whose label is not available; one of `shares`.
        salt: Seed of the assignment; another salt assigns all users again.
    """

    shares: Mapping[str, float]
    fallback: str = "stable"
    salt: str = ""

    def __post_init__(self) -> None:
        shares = mapping("Split", self.shares, example="{'stable': 0.9, 'canary': 0.1}")
        object.__setattr__(
            self,
            "shares",
            {
                text("a label of a Split", label): number(f"the share of {label!r}", share)
                for label, share in shares.items()
            },
        )
        if not self.shares:
            raise ValueError("a Split needs at least one label")
        for label, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"the share of {label!r} must be in [0, 1], got {share!r}")
        if not isinstance(self.salt, str):
            raise ValueError(f"salt must be a string, got {self.salt!r}{text_remedy(self.salt)}")
        total = math.fsum(self.shares.values())
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"the shares of a Split must add up to 1, got {total:g}")
        if self.fallback not in self.shares:
            raise ValueError(
                f"fallback {self.fallback!r} is not one of the labels {sorted(self.shares)}"
            )

    def __hash__(self) -> int:
        return hash((tuple(self.shares.items()), self.fallback, self.salt))

    def label_for(self, user_id: str) -> str:
        """Return the label of a user."""
        if not isinstance(user_id, str):
            raise ValueError(f"a user id is a string, got {user_id!r}{text_remedy(user_id)}")
        digest = hashlib.blake2b(
            user_id.encode(), digest_size=8, key=hashlib.sha256(self.salt.encode()).digest()
        ).digest()
        point = int.from_bytes(digest, "big") / 2**64
        reached = 0.0
        chosen = self.fallback
        for label, share in self.shares.items():
            if share > 0:
                chosen = label
                reached += share
                if point < reached:
                    break
        return chosen
