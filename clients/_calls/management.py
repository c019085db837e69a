"""Flows about the server and its servables: metadata, status, waiting and configuration."""

import time
from typing import Any

from shortlist.clients import errors
from shortlist.clients._arguments import seconds
from shortlist.clients._calls.call import Call, Flow, Sleep
from shortlist.clients._calls.failures import without_advice
from shortlist.clients._codecs.requests import (
    MetadataRequest,
    ReloadRequest,
    StatusRequest,
    Target,
)
from shortlist.clients.types import Metadata, ModelStatus, State, VersionStatus

__all__ = ["metadata", "reload_config", "status", "wait"]


def metadata(call: Call) -> Flow[Metadata]:
    """Return the signatures of a servable."""
    return call.send(MetadataRequest(target=call.target))


def status(call: Call) -> Flow[ModelStatus]:
    """Return the states of a model's versions, or of one of them."""
    return call.send(StatusRequest(target=call.target))


def reload_config(call: Call, config: Any) -> Flow[None]:
    """Replace the server's configuration."""
    from shortlist.clients._codecs.protobuf import server_config

    call.explains = False  # the names in such an error are not the call's own
    yield from call.send(ReloadRequest(config=server_config(config)))


def wait(call: Call, *, timeout: float, poll_interval: float) -> Flow[ModelStatus]:
    """Poll until the servable is AVAILABLE, for at most `timeout` seconds."""
    target = call.target
    poll_interval = seconds("poll_interval", poll_interval)
    deadline = time.monotonic() + timeout
    last_seen = "no answer yet"
    while True:
        reply = yield from call.ask(
            StatusRequest(target=Target(model=target.model, version=target.version))
        )
        if isinstance(reply, ModelStatus):
            _raise_if_failed(target, reply)
            last_seen = ", ".join(f"version {v.version} {v.state.name}" for v in reply.versions)
            if reply.available:
                if target.label is None:
                    return reply
                # GetModelStatus ignores labels; metadata resolves them and runs nothing.
                probe = yield from call.ask(MetadataRequest(target=target))
                if isinstance(probe, Metadata):
                    return reply
                last_seen = f"{last_seen}; {probe}"
        elif isinstance(reply, errors.Unauthenticated | errors.PermissionDenied | errors.WrongPort):
            raise reply
        else:
            last_seen = without_advice(reply)
        remaining = deadline - time.monotonic()
        if remaining <= poll_interval:
            raise errors.DeadlineExceeded(
                f"{target} did not become AVAILABLE within {timeout:g} s; last seen: {last_seen}"
            )
        yield Sleep(poll_interval)


def _raise_if_failed(target: Target, status: ModelStatus) -> None:
    def failed(entry: VersionStatus) -> bool:
        return entry.state is State.END and entry.error_message is not None

    if status.versions and all(failed(entry) for entry in status.versions):
        newest = max(status.versions, key=lambda entry: entry.version)
        raise errors.LoadFailed(
            f"{target}: version {newest.version} failed to load: {newest.error_code}: "
            f"{newest.error_message}; publish a new version (the server does not retry this one)",
            received=newest.error_message,
        )
