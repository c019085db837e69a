"""Tokens and passwords appear in no error, representation, log, event or output."""

import http.server
import logging
import threading
import traceback
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from shortlist.clients import CallEvent, RetryPolicy
from shortlist.clients.cli.main import main
from shortlist.clients.connection import Security
from shortlist.clients.errors import ServingError
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer

SECRET = "hunter2-s3cret"
ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {SECRET}\n"},
        {"authorization": f"Bearer {SECRET}\r\nx: y"},
        {"authorization": f" {SECRET}"},
        {"authorization": f"{SECRET}é"},
        {"authorization": f"{SECRET}\x00"},
        {"authorization": SECRET.encode()},
        {"authorization": [SECRET]},
        {f"authorization: Bearer {SECRET}": "x"},
        {SECRET.encode(): "x"},
        [("authorization", SECRET)],
        f"Bearer {SECRET}",
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(
    transport: str, headers: Any
) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        make_client(transport, "127.0.0.1:1", headers=headers)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{SECRET}@127.0.0.1:8501",
        f"me:{SECRET}@127.0.0.1:8501",
        f"{SECRET}@127.0.0.1:8501",
        f"http://me:{SECRET}/a#b c@127.0.0.1:8501",
        f"dns://me:{SECRET}@127.0.0.1:8501",
    ],
)
def test_an_address_with_a_password_is_refused_without_it(transport: str, address: str) -> None:
    with pytest.raises(ValueError, match="no user and no password") as caught:
        make_client(transport, address)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "127.0.0.1:8501" in str(caught.value)


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "UNAVAILABLE", "INTERNAL", "NOT_FOUND"])
def test_a_header_that_the_server_repeats_is_not_shown(
    transport: str, server: ToyServer, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[CallEvent] = []
    server.fail(code, f"no such token: Bearer {SECRET} ({SECRET})", times=9)
    caplog.set_level(logging.DEBUG)
    with (
        make_client(
            transport,
            server.address(transport),
            headers={"authorization": f"Bearer {SECRET}"},
            hooks=[events.append],
            retry=RetryPolicy(max_attempts=2, initial_backoff=0),
        ) as client,
        pytest.raises(ServingError, match="no such token: … ") as caught,
    ):
        client.retrieve(["42"])
    shown = "".join(traceback.format_exception(caught.value))
    for text in (shown, repr(caught.value), str(caught.value.received), repr(events), caplog.text):
        assert SECRET not in text
    assert events


def test_the_representation_of_connection_options_has_no_values() -> None:
    security = Security(headers={"authorization": f"Bearer {SECRET}"})
    assert repr(security) == "Security(tls=False, headers=['authorization'], trust_env=False)"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--header", f"authorization: Bearer {SECRET}"],
        ["--header", f"authorization: Bearer {SECRET}=="],
        ["--header", f"authorization=Bearer {SECRET}\n"],
        ["--address", f"http://me:{SECRET}@127.0.0.1:1"],
    ],
)
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_commands_print_no_secrets(
    arguments: list[str], debug: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*debug, "query", "42", *arguments]) == 1
    shown = capsys.readouterr()
    assert "error: " in shown.err
    assert SECRET not in shown.out + shown.err


class _Proxy(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_CONNECT(self) -> None:
        self.asked.append(f"{self.path} {self.headers}")
        self.send_error(502)

    do_GET = do_POST = do_CONNECT  # noqa: N815 - the names of the base class


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Start a proxy and name it in the environment; yield what it is asked."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    _Proxy.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://me:{SECRET}@127.0.0.1:{listener.server_address[1]}")
        yield _Proxy.asked
        listener.shutdown()
        thread.join()


def test_the_environments_proxy_is_used_only_if_asked(
    transport: str, server: ToyServer, proxy: list[str]
) -> None:
    options: dict[str, Any] = {"headers": {"authorization": "Bearer 123456"}, "retry": ONCE}
    with make_client(transport, server.address(transport), **options) as client:
        client.status()
    assert not proxy
    with (
        make_client(transport, server.address(transport), trust_env=True, **options) as client,
        pytest.raises(ServingError) as caught,
    ):
        client.status(timeout=3)
    assert proxy
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_commands_use_the_environments_proxy_only_if_asked(
    transport: str, server: ToyServer, proxy: list[str]
) -> None:
    asked = ["query", "42", "--transport", transport, "--address", server.address(transport)]
    assert main(asked) == 0
    assert not proxy
    assert main([*asked, "--trust-env", "--timeout", "1"]) == 1
    assert proxy
