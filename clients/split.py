"""Shares of users by version label, so that a canary needs no proxy."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

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
        shadow: Share of users by label whose requests are also sent to that label, once their own
            answer is there. A copy is sent in the background and once; it is dropped if others
            are too slow, and never delays or fails a call. Its answer reaches hooks that take
            answers alone, such as `RequestLog`; without one no copies are sent.
    """

    shares: Mapping[str, float]
    fallback: str = "stable"
    salt: str = ""
    shadow: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shares = mapping("Split", self.shares, example="{'stable': 0.9, 'canary': 0.1}")
        shadow = mapping("shadow", self.shadow, example="{'canary': 0.1}")
        object.__setattr__(self, "shares", _checked(shares))
        object.__setattr__(self, "shadow", _checked(shadow))
        if not self.shares:
            raise ValueError("a Split needs at least one label")
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
        shadow = tuple(self.shadow.items())
        return hash((tuple(self.shares.items()), self.fallback, self.salt, shadow))

    def label_for(self, user_id: str) -> str:
        """Return the label of a user."""
        point = _point(user_id, self.salt)
        reached = 0.0
        chosen = self.fallback
        for label, share in self.shares.items():
            if share > 0:
                chosen = label
                reached += share
                if point < reached:
                    break
        return chosen

    def is_shadowed(self, user_id: str, label: str) -> bool:
        """Return whether copies of a user's requests go to a label, unless it is the user's."""
        share = self.shadow.get(label, 0.0)
        if self.label_for(user_id) == label:
            return False
        return _point(user_id, f"shadow/{label}/{self.salt}") < share


def _checked(shares: Mapping[str, float]) -> dict[str, float]:
    checked = {
        text("a label of a Split", label): number(f"the share of {label!r}", share)
        for label, share in shares.items()
    }
    for label, share in checked.items():
        if not 0 <= share <= 1:
            raise ValueError(f"the share of {label!r} must be in [0, 1], got {share!r}")
    return checked


def _point(user_id: str, salt: str) -> float:
    """Return a number in [0, 1) that is a user's everywhere."""
    if not isinstance(user_id, str):
        raise ValueError(f"a user id is a string, got {user_id!r}{text_remedy(user_id)}")
    key = hashlib.sha256(salt.encode()).digest()
    digest = hashlib.blake2b(user_id.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") / 2**64
