"""A hook that writes spans with OpenTelemetry; needs the extra `shortlist[opentelemetry]`."""

from opentelemetry import propagate, trace

from shortlist.clients.hooks import CallEvent

__all__ = ["OpenTelemetryHook", "trace_headers"]


class OpenTelemetryHook:
    """Hook that writes one client span per request.

    Its parent is the current span of the calling thread or task. With
    `headers=trace_headers`, proxies and servers continue the same trace.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Use a provider; the global one if not set."""
        self._tracer = trace.get_tracer("shortlist.clients", tracer_provider=provider)

    def __call__(self, event: CallEvent) -> None:
        """Write one span."""
        started = int(event.started * 1e9)
        attributes: dict[str, str | int] = {
            "rpc.system": "http" if event.transport == "rest" else event.transport,
            "rpc.method": event.operation,
            "server.address": event.address,
            "shortlist.attempts": event.attempts,
            "shortlist.status": event.status,
        }
        for name, value in (
            ("shortlist.model", event.model),
            ("shortlist.label", event.label),
            ("shortlist.version", event.version),
        ):
            if value is not None:
                attributes[name] = value
        span = self._tracer.start_span(
            f"shortlist {event.operation}",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=started,
        )
        if event.status != "OK":
            span.set_status(trace.Status(trace.StatusCode.ERROR, event.status))
        span.end(end_time=started + int(event.seconds * 1e9))


def trace_headers() -> dict[str, str]:
    """Return the headers of the current trace; pass the function as a client's `headers`."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
