"""Limits of the gates."""

from dataclasses import dataclass

from shortlist.export.config import TARGETS
from shortlist.export.gates.record import GATES
from shortlist.serving.servers.kinds import ServerKind

__all__ = ["GateSettings"]


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """Limits of the gates.

    Attributes:
        server: Kind of server that the gates start: `embedded`, `binary` or `docker`. Stock
            servers skip servables with ops that they lack.
        target: Name from `TARGETS` of the server that must have the ops; None for the embedded
            server if there are ops of ScaNN, else a stock one.
        target_producer: Newest graph format that the target server reads; None for that of
            the installed TensorFlow.
        min_recall: Minimum recall@10 against brute force.
        max_quality_drop: Maximum drop of the headline metric, as a share of the live version's.
            A drop counts as larger only if its 95% interval excludes anything smaller.
        max_size_change: Maximum change of the number of candidates, as a share of the live
            version's.
        max_lost: Maximum share of the live version's candidates that may disappear.
        load_timeout: Seconds for the server to make everything AVAILABLE.
        max_memory_bytes: Maximum resident size of the server with everything loaded.
        max_latency_ratio: Maximum p99 of one query as a multiple of the live version's.
        latency_slack_ms: Increase of p99 that is always fine: noise of a shared machine.
        allow: Gates whose failure is recorded and overridden.
        quick: Skip the gates that measure: `recall`, `quality` and `latency`.
    """

    server: ServerKind = ServerKind.EMBEDDED
    target: str | None = None
    target_producer: int | None = None
    min_recall: float = 0.8
    max_quality_drop: float = 0.1
    max_size_change: float = 0.5
    max_lost: float = 0.2
    load_timeout: float = 180.0
    max_memory_bytes: int = 16 * 2**30
    max_latency_ratio: float = 1.5
    latency_slack_ms: float = 5.0
    allow: frozenset[str] = frozenset()
    quick: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(self.allow - set(GATES))
        if unknown:
            raise ValueError(f"unknown gate {unknown[0]!r}; gates are {', '.join(GATES)}")
        if self.target is not None and self.target not in TARGETS:
            raise ValueError(f"unknown target {self.target!r}; choose from {', '.join(TARGETS)}")
        for name in ("min_recall", "max_quality_drop", "max_lost"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in (
            "max_size_change",
            "load_timeout",
            "max_memory_bytes",
            "max_latency_ratio",
            "latency_slack_ms",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def allow_file_ops(self) -> bool:
        """Load models with ops that reach out of them, which the gate `ops` then allows."""
        return "ops" in self.allow
