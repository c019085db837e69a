"""Deadlines, backoff and the retry budget."""

import math
import random
import threading
import time
from dataclasses import dataclass

from shortlist.clients._arguments import number, seconds, whole
from shortlist.clients.errors import DeadlineExceeded, Overloaded, ServingError

__all__ = ["Attempts", "Deadline", "RetryBudget", "RetryPolicy"]

_LEAST_TIMEOUT = 1e-3  # seconds; less is not worth a try


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Number and pauses of the tries of a call.

    Retried are UNAVAILABLE, RESOURCE_EXHAUSTED / HTTP 429, HTTP 502, 503 and 504, and
    connections that are refused or reset; never `reload_config`, and never past the
    deadline of the call.

    A server without capacity (`Overloaded`) has done no work, and has a place again when another
    call ends. So such a call is tried until its deadline and costs no budget, but waits: the
    client's calls wait in order, and each that ends wakes the next, or a pause ends.

    Attributes:
        max_attempts: Maximum number of failed tries, not counting refusals for lack of capacity;
            1 for no retries of either kind.
        initial_backoff: Upper bound of the first pause, in seconds.
        multiplier: Growth of that bound from pause to pause.
        max_backoff: Limit of that bound. The pause is drawn uniformly from the upper half.
        attempt_timeout: Limit of one try in seconds, so that a server that does not answer
            leaves time for another; `None` for no limit but the call's deadline.
        budget: Maximum number of saved retries. Each retry spends one and each success earns
            `budget_ratio` back, so that an outage does not cause a storm of retries.
        budget_ratio: Share of a retry that each success earns.
    """

    max_attempts: int = 4
    initial_backoff: float = 0.05
    multiplier: float = 2.0
    max_backoff: float = 1.0
    attempt_timeout: float | None = None
    budget: float = 20.0
    budget_ratio: float = 0.1

    def __post_init__(self) -> None:
        whole("max_attempts", self.max_attempts, least=1)
        for name in ("initial_backoff", "max_backoff", "budget", "budget_ratio"):
            if number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if number("multiplier", self.multiplier) < 1:
            raise ValueError(f"multiplier must be at least 1, got {self.multiplier}")
        if self.attempt_timeout is not None:
            seconds("attempt_timeout", self.attempt_timeout)


class RetryBudget:
    """Saved retries of one client; safe to share between threads."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._limit = policy.budget
        self._ratio = policy.budget_ratio
        self._tokens = policy.budget
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Record a success."""
        if self._tokens < self._limit:
            with self._lock:
                self._tokens = min(self._limit, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Spend one retry; return `False` if too little is left."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Deadline:
    """End of a whole call, in monotonic time."""

    __slots__ = ("_at", "timeout")

    def __init__(self, timeout: float) -> None:
        """Start the clock; infinity never ends.

        Raises:
            ValueError: `timeout` is not a positive number.
        """
        self.timeout = seconds("timeout", timeout)
        self._at = time.monotonic() + self.timeout

    def remaining(self) -> float:
        """Return the seconds left; negative after the deadline."""
        return self._at - time.monotonic()


class Attempts:
    """The tries of one request."""

    __slots__ = ("_bound", "_budget", "_deadline", "_failed", "_policy", "count")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, deadline: Deadline) -> None:
        self._policy = policy
        self._budget = budget
        self._deadline = deadline
        self._bound = policy.initial_backoff
        self._failed = 0
        self.count = 0

    def next_timeout(self, remaining: float) -> float | None:
        """Count a try and return its limit in seconds; `None` for no limit.

        Args:
            remaining: Seconds until the deadline of the call.
        """
        self.count += 1
        limit = self._policy.attempt_timeout
        timeout = remaining if limit is None or remaining < limit else limit
        if timeout == math.inf:
            return None
        return timeout if timeout > _LEAST_TIMEOUT else _LEAST_TIMEOUT

    def turn(self) -> float:
        """Return the longest wait behind other calls before the first try, in seconds."""
        return max(0.0, min(self._policy.max_backoff, self._deadline.remaining() / 2))

    def pause(self, error: ServingError, *, repeatable: bool) -> float | None:
        """Return the pause before the next try in seconds; `None` if the error is final."""
        policy = self._policy
        if not (repeatable and error.retryable) or policy.max_attempts == 1:
            return None
        # A refusal costs a server next to nothing, and it ends as soon as other calls do.
        refused = isinstance(error, Overloaded)
        self._failed += not refused
        if self._failed >= policy.max_attempts:
            return None
        bound = min(policy.max_backoff, self._bound)
        self._bound = bound * policy.multiplier
        pause = random.uniform(bound / 2, bound)
        remaining = self._deadline.remaining()
        if remaining <= pause or (isinstance(error, DeadlineExceeded) and remaining <= 0.01):
            return None
        return pause if refused or self._budget.spend() else None
