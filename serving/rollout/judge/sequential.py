"""A test of a mean that may be looked at after every observation.

With a fixed threshold, whoever looks often enough sees it crossed by chance. Here
somebody bets against the hypothesis: a stake of 1 is multiplied by `1 + bet * (x - mean)`
with each observation. If the hypothesis holds, the stake cannot grow in expectation, so it
ever reaches `1 / alpha` with a probability of at most alpha (Ville's inequality; see
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024).
Several bets side by side, of which the mean counts, need not know how large the effect is.
"""

import math

__all__ = ["Bet"]

_BETS = 12  # side by side, each half as bold as the one before


class Bet:
    """Evidence that the mean of bounded observations lies above, or below, a value.

    Attributes:
        count: Observations so far.
    """

    def __init__(self, *, value: float, low: float, high: float, above: bool) -> None:
        """Starts with a stake of 1.

        Args:
            value: The hypothesis is a mean at most this, or at least this.
            low: Smallest possible observation.
            high: Largest possible observation.
            above: Whether evidence is wanted that the mean is above `value`.
        """
        if not low < value < high:
            raise ValueError(f"value must lie between {low:g} and {high:g}, got {value:g}")
        self.count = 0
        self._value, self._low, self._high, self._above = value, low, high, above
        # The boldest bet keeps a tenth of the stake at the worst observation.
        worst = value - low if above else high - value
        self._bets = [0.9 / worst * 0.5**step for step in range(_BETS)]
        self._logs = [0.0] * _BETS

    def observe(self, x: float) -> None:
        """Takes one observation into account.

        Raises:
            ValueError: It lies outside the bounds.
        """
        if not self._low <= x <= self._high:
            raise ValueError(
                f"an observation must lie between {self._low:g} and {self._high:g}, got {x:g}"
            )
        gain = x - self._value if self._above else self._value - x
        self._logs = [
            log + math.log1p(bet * gain) for log, bet in zip(self._logs, self._bets, strict=True)
        ]
        self.count += 1

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the stake."""
        top = max(self._logs)
        return top + math.log(sum(math.exp(log - top) for log in self._logs) / _BETS)

    def decided(self, alpha: float) -> bool:
        """Whether the hypothesis is refuted, wrongly with probability `alpha` at most."""
        return self.log_evidence >= -math.log(alpha)
