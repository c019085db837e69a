"""The wrong one of a server's ports and TLS on a plain port are recognised."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import RetryPolicy, Tls
from shortlist.clients._calls.failures import unreachable
from shortlist.clients._codecs.requests import StatusRequest, Target
from shortlist.clients.cli.main import main
from shortlist.clients.errors import ProtocolError, Unavailable, WrongPort
from tests.unit.clients.conftest import make_client, secured
from tests.unit.clients.toys import ToyServer

ONCE = RetryPolicy(max_attempts=1)

SPEAKS_GRPC = (
    r"^127\.0\.0\.1:\d+ speaks gRPC, not REST; use GrpcClient \(--transport grpc\), or the REST "
    r"port \(8501 by default\)$"
)
SPEAKS_REST = (
    r"^127\.0\.0\.1:\d+ speaks REST, not gRPC; use the gRPC port \(8500 by default\), or "
    r"RestClient \(--transport rest\)$"
)
SPEAKS_TLS = r"^127\.0\.0\.1:\d+ speaks TLS, and the client did not; pass tls=True \(--tls\)$"
NO_TLS = r"^127\.0\.0\.1:\d+ does not speak TLS; leave out tls \(--tls, --ca, --certificate\)"

# First bytes of other servers.
TENSORFLOW_SERVING_REST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
SETTINGS = bytes.fromhex("00000c0400000000000003000003e800040000ffff")
TLS_ALERT = bytes.fromhex("15030100020246")
NGINX_TLS = b"<html><center>The plain HTTP request was sent to HTTPS port</center></html>"
GO_TLS = b"Client sent an HTTP request to an HTTPS server.\n"


def opposite(transport: str) -> str:
    return "grpc" if transport == "rest" else "rest"


def speaks(transport: str) -> str:
    return SPEAKS_GRPC if transport == "rest" else SPEAKS_REST


def http_400(page: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(page) + page


@contextmanager
def port(reply: bytes) -> Iterator[str]:
    """Yield the address of a port that sends the same bytes to every connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("operation", ["retrieve", "status", "wait_until_available"])
def test_the_other_port_of_a_server_is_named(
    transport: str, server: ToyServer, operation: str
) -> None:
    arguments: Any = [["42"]] if operation == "retrieve" else []
    with (
        make_client(transport, server.address(opposite(transport))) as client,
        pytest.raises(WrongPort, match=speaks(transport)),
    ):
        getattr(client, operation)(*arguments)


@pytest.mark.parametrize(
    ("kind", "reply", "text"),
    [
        ("rest", SETTINGS, SPEAKS_GRPC),
        ("rest", TLS_ALERT, SPEAKS_TLS),
        ("rest", http_400(NGINX_TLS), SPEAKS_TLS),
        ("rest", http_400(GO_TLS), SPEAKS_TLS),
        ("grpc", TENSORFLOW_SERVING_REST, SPEAKS_REST),
        ("grpc", b"<!DOCTYPE HTML><html></html>", SPEAKS_REST),
        ("grpc", TLS_ALERT + bytes(2), SPEAKS_TLS),
        ("aio", TENSORFLOW_SERVING_REST, SPEAKS_REST),
    ],
)
def test_the_first_bytes_tell_the_protocol(kind: str, reply: bytes, text: str) -> None:
    with (
        port(reply) as address,
        make_client(kind, address) as client,
        pytest.raises(WrongPort, match=text) as caught,
    ):
        client.status()
    assert caught.value.__cause__ is not None or kind == "rest"
    assert caught.value.received


@pytest.mark.parametrize("other", ["rest", "grpc"])
def test_tls_to_a_plain_port_is_said(transport: str, server: ToyServer, other: str) -> None:
    with (
        make_client(transport, server.address(other), tls=True) as client,
        pytest.raises(WrongPort, match=NO_TLS),
    ):
        client.status()


@pytest.mark.parametrize("other", ["rest", "grpc"])
def test_a_plain_client_of_a_tls_port_is_told_about_tls(
    transport: str, certificates: Path, other: str
) -> None:
    # The port closes the connection without a word, as a crashing server does.
    with (
        secured(other, certificates, mutual=False) as address,
        make_client(transport, address, retry=ONCE) as client,
        pytest.raises(Unavailable, match=r"\(if the port speaks TLS, pass tls=True or --tls\)"),
    ):
        client.status()


def test_the_other_port_with_tls_is_named(transport: str, certificates: Path) -> None:
    own = Tls(ca=certificates / "ca.pem")
    text = "or it is the other of its ports" if transport == "rest" else SPEAKS_REST
    with (
        secured(opposite(transport), certificates, mutual=False) as address,
        make_client(transport, address, tls=own, retry=ONCE) as client,
        pytest.raises(Unavailable if transport == "rest" else WrongPort, match=text),
    ):
        client.status()


def test_an_unknown_authority_is_told_apart_from_a_server_that_is_down(
    transport: str, certificates: Path
) -> None:
    with (
        secured(transport, certificates, mutual=False) as address,
        make_client(transport, address, tls=True, retry=ONCE) as client,
        pytest.raises(Unavailable, match=r"pass the authority .* Tls\(ca=FILE\) or --ca FILE$"),
    ):
        client.status()


def test_an_address_without_a_port_is_told_the_usual_one() -> None:
    request = StatusRequest(target=Target(model="m"))
    for address, tls, port in (("http://host", False, 80), ("https://[::1]/path", True, 443)):
        error = unreachable(request=request, address=address, tls=tls, reason="refused")
        assert f"(at port {port}, as the address has none; try :8501)" in str(error)
    error = unreachable(request=request, address="http://host:1/path", tls=False, reason="refused")
    assert "as the address has none" not in str(error)


def test_another_web_server_is_not_taken_for_one_without_the_model() -> None:
    page = b"<html>404 page not found</html>"
    with (
        port(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(page) + page) as address,
        make_client("rest", address) as client,
        pytest.raises(ProtocolError, match="this is not TensorFlow Serving's REST API"),
    ):
        client.status()


@pytest.mark.parametrize("verb", [["query", "42"], ["status"], ["predict", "--input", "x=[1]"]])
@pytest.mark.parametrize("chosen", ["rest", "grpc"])
def test_every_verb_says_it_in_one_line(
    server: ToyServer, capsys: pytest.CaptureFixture[str], verb: list[str], chosen: str
) -> None:
    address = server.address(opposite(chosen))
    assert main([*verb, "--transport", chosen, "--address", address]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"shortlist: error: {address} speaks ")
    assert f"--transport {opposite(chosen)}" in err
    assert err.count("\n") == 1
