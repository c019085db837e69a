"""A hook that counts calls in Prometheus; needs the extra `shortlist[prometheus]`."""

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from shortlist.clients.hooks import CallEvent

__all__ = ["PrometheusHook"]

_BUCKETS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class PrometheusHook:
    """Hook that counts and times requests.

    Exports `shortlist_client_call_seconds` (histogram) and `shortlist_client_retries_total`
    (counter), by operation, transport, model, version label and version; the first also by
    status. Unlike the server's own metrics, these distinguish canary from stable.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        Raises:
            ValueError: The registry already has them; share one hook between clients.
        """
        names = ["operation", "transport", "model", "label", "version"]
        self._seconds = Histogram(
            "shortlist_client_call_seconds",
            "Time of a call with its retries.",
            [*names, "status"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            "shortlist_client_retries_total",
            "Tries beyond the first.",
            names,
            registry=registry,
        )

    def __call__(self, event: CallEvent) -> None:
        """Count one event."""
        version = "" if event.version is None else str(event.version)
        values = (event.operation, event.transport, event.model or "", event.label or "", version)
        self._seconds.labels(*values, event.status).observe(event.seconds)
        if event.attempts > 1:
            self._retries.labels(*values).inc(event.attempts - 1)
