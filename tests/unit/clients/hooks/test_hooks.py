import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from shortlist.clients import CallEvent, RetryPolicy
from shortlist.clients.errors import ServableNotFound
from shortlist.clients.hooks.prometheus import PrometheusHook
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer

QUICK = RetryPolicy(initial_backoff=0.001)


def test_each_request_is_reported_with_its_tries(transport: str, server: ToyServer) -> None:
    events: list[CallEvent] = []
    address = server.address(transport)
    with make_client(transport, address, hooks=[events.append], retry=QUICK) as client:
        server.fail("UNAVAILABLE", "once")
        client.retrieve(["42"], label="canary")
    (event,) = events
    assert event.transport == ("rest" if transport == "rest" else "grpc")
    assert address in event.address
    assert (event.operation, event.model, event.label, event.version) == (
        "retrieve",
        "retrieval_brute_force",
        "canary",
        2,
    )
    assert (event.status, event.attempts) == ("OK", 2)
    assert 0 < event.seconds < 5


def test_a_failure_is_reported_by_its_class(transport: str, server: ToyServer) -> None:
    events: list[CallEvent] = []
    with (
        make_client(transport, server.address(transport), hooks=[events.append]) as client,
        pytest.raises(ServableNotFound),
    ):
        client.status(model="nope")
    assert [(event.operation, event.status) for event in events] == [("status", "ServableNotFound")]


def test_a_hook_that_fails_does_not_fail_the_call(
    transport: str, server: ToyServer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: CallEvent) -> None:
        raise RuntimeError("the hook is broken")

    with make_client(transport, server.address(transport), hooks=[broken]) as client:
        assert len(client.retrieve(["42"])) == 1
    assert "the hook is broken" in caplog.text


def test_user_ids_are_logged_at_debug_alone(
    transport: str, server: ToyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with make_client(transport, server.address(transport), retry=QUICK) as client:
        server.fail("UNAVAILABLE", "once")
        client.retrieve(["a-secret-user"])
    assert "a-secret-user" not in caplog.text


def test_prometheus_counts_calls_and_retries(transport: str, server: ToyServer) -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    with make_client(transport, server.address(transport), hooks=[hook], retry=QUICK) as client:
        client.retrieve(["42"], label="stable")
        server.fail("UNAVAILABLE", "once")
        client.retrieve(["42"], label="stable")
    labels = {
        "operation": "retrieve",
        "transport": "rest" if transport == "rest" else "grpc",
        "model": "retrieval_brute_force",
        "label": "stable",
        "version": "1",
    }
    calls = registry.get_sample_value(
        "shortlist_client_call_seconds_count", {**labels, "status": "OK"}
    )
    assert calls == 2
    assert registry.get_sample_value("shortlist_client_retries_total", labels) == 1


def test_opentelemetry_writes_spans_and_passes_the_trace_on(
    transport: str, server: ToyServer
) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import StatusCode

    from shortlist.clients.hooks.opentelemetry import OpenTelemetryHook, trace_headers

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with make_client(
        transport,
        server.address(transport),
        hooks=[OpenTelemetryHook(provider)],
        headers=trace_headers,
    ) as client:
        if transport != "aio":  # there the test's own thread is not the caller
            with provider.get_tracer("test").start_as_current_span("request") as parent:
                client.retrieve(["42"])
                trace_id = parent.get_span_context().trace_id
            assert f"{trace_id:032x}" in server.calls[-1].headers["traceparent"]
            child = exporter.get_finished_spans()[0]
            assert child.context is not None
            assert child.context.trace_id == trace_id
        with pytest.raises(ServableNotFound):
            client.status(model="nope")
    failed = exporter.get_finished_spans()[-1]
    attributes: Any = failed.attributes
    assert failed.name == "shortlist status"
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes["shortlist.model"] == "nope"
    assert attributes["shortlist.status"] == "ServableNotFound"
