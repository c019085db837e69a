"""What a gate measured, what it required, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shortlist.clients.errors import ShortlistError

__all__ = ["GATES", "GateError", "GateResult", "Verdict", "as_json", "failed"]

# In the order they run.
GATES = ("complete", "signatures", "golden", "ops", "quality", "corpus", "server", "latency")


class Verdict(StrEnum):
    """What came of a gate."""

    PASSED = "passed"
    FAILED = "failed"
    ALLOWED = "allowed"  # failed, and overridden by --allow
    SKIPPED = "skipped"  # there is nothing to measure it by


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate of one servable.

    Attributes:
        gate: One of `GATES`.
        verdict: What came of it.
        measured: What was found, in words and numbers.
        required: What should have been found.
    """

    gate: str
    verdict: Verdict
    measured: str
    required: str

    def __str__(self) -> str:
        return (
            f"{self.gate:<10} {self.verdict.upper():<8} {self.measured} (required: {self.required})"
        )


class GateError(ShortlistError, RuntimeError):
    """A gate failed, so nothing was published.

    Attributes:
        results: All results by servable name.
    """

    def __init__(self, message: str, results: Mapping[str, Sequence[GateResult]]) -> None:
        super().__init__(message)
        self.results = results


def as_json(results: Sequence[GateResult]) -> list[dict[str, Any]]:
    """The record for the manifest."""
    return [
        {
            "gate": result.gate,
            "verdict": str(result.verdict),
            "measured": result.measured,
            "required": result.required,
        }
        for result in results
    ]


def failed(results: Mapping[str, Sequence[GateResult]]) -> GateError | None:
    """The error for the gates that failed and are not allowed to; None if there is none."""
    bad = [
        (name, result)
        for name, found in results.items()
        for result in found
        if result.verdict is Verdict.FAILED
    ]
    if not bad:
        return None
    name, first = bad[0]
    others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return GateError(
        f"{name} failed the gate {first.gate!r}: {first.measured}, required: {first.required}"
        f"{others}; mend the model, or publish it all the same with --allow {first.gate}",
        results,
    )
