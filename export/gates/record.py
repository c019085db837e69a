"""What a gate measured, what it required, and what came of it."""

from collections.abc import Mapping, Sequence

from shortlist.clients.errors import ShortlistError
from shortlist.serving.repository.version import GateResult, Verdict

__all__ = ["GATES", "GateError", "failed"]

# In the order they run.
GATES = ("complete", "signatures", "golden", "ops", "quality", "corpus", "server", "latency")


class GateError(ShortlistError, RuntimeError):
    """A gate failed, so nothing was published.

    Attributes:
        results: All results by servable name.
    """

    def __init__(self, message: str, results: Mapping[str, Sequence[GateResult]]) -> None:
        super().__init__(message)
        self.results = results


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
