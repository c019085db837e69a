"""Results of gates, and the error for those that failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shortlist.clients.errors import ShortlistError
from shortlist.serving.repository.version import GateResult, Verdict

__all__ = ["GATES", "QUICK", "Gate", "GateError", "require_passed", "summary"]

# In the order they run.
GATES = (
    "complete",
    "signatures",
    "golden",
    "ops",
    "recall",
    "quality",
    "corpus",
    "server",
    "latency",
)


@dataclass(frozen=True)
class Gate:
    """A gate with its requirement; methods turn measurements into results.

    Attributes:
        name: One of `GATES`.
        required: Required values, in words and numbers.
    """

    name: str
    required: str = "-"

    def result(self, passed: bool, measured: str) -> GateResult:
        """Return a result that passed or failed."""
        return self._result(Verdict.PASSED if passed else Verdict.FAILED, measured)

    def failed(self, measured: str) -> GateResult:
        """Return a result that failed."""
        return self._result(Verdict.FAILED, measured)

    def skipped(self, reason: str) -> GateResult:
        """Return a result without a measurement."""
        return self._result(Verdict.SKIPPED, reason)

    def _result(self, verdict: Verdict, measured: str) -> GateResult:
        return GateResult(
            gate=self.name, verdict=verdict, measured=measured, required=self.required
        )


class GateError(ShortlistError, RuntimeError):
    """A gate failed, so nothing was published.

    Attributes:
        results: All results by servable name.
    """

    def __init__(self, message: str, results: Mapping[str, Sequence[GateResult]]) -> None:
        super().__init__(message)
        self.results = results


QUICK = "left out by --gates quick"  # why a gate is skipped


def require_passed(results: Mapping[str, Sequence[GateResult]]) -> None:
    """Check that no gate failed, except for overridden ones.

    Raises:
        GateError: A gate failed.
    """
    failed = [
        (name, result)
        for name, servable_results in results.items()
        for result in servable_results
        if result.verdict is Verdict.FAILED
    ]
    if not failed:
        return
    allow = " ".join(
        f"--allow {gate}" for gate in dict.fromkeys(result.gate for _, result in failed)
    )
    lines = [
        f"{name} failed the gate {result.gate!r}: {result.measured}, required: {result.required}"
        for name, result in failed
    ]
    remedy = f"fix the model, or publish it anyway with {allow}"
    message = f"{lines[0]}; {remedy}"
    if len(lines) > 1:
        message = "\n  ".join([f"{len(lines)} gates failed", *lines, remedy])
    raise GateError(message, results)


def summary(results: Mapping[str, Sequence[GateResult]]) -> str:
    """Return the number of results by verdict, such as `21 passed, 3 skipped`."""
    verdicts = [result.verdict for servable in results.values() for result in servable]
    counts = [(verdict, verdicts.count(verdict)) for verdict in Verdict]
    return ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
