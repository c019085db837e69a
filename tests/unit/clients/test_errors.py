"""The error tree: every gRPC code and HTTP status, the same class over both transports."""

import http.server
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from shortlist.clients import RetryPolicy, errors
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer

ONCE = RetryPolicy(max_attempts=1)

BY_CODE = {
    "CANCELLED": errors.ServerError,
    "UNKNOWN": errors.ServerError,
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "NOT_FOUND": errors.ServableNotFound,
    "ALREADY_EXISTS": errors.ServerError,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
    "FAILED_PRECONDITION": errors.InvalidRequest,
    "ABORTED": errors.ServerError,
    "OUT_OF_RANGE": errors.InvalidRequest,
    "UNIMPLEMENTED": errors.Unsupported,
    "INTERNAL": errors.ServerError,
    "UNAVAILABLE": errors.Unavailable,
    "DATA_LOSS": errors.ServerError,
    "UNAUTHENTICATED": errors.Unauthenticated,
}

BY_STATUS = {
    **dict.fromkeys(range(300, 309), errors.ProtocolError),
    **dict.fromkeys(range(400, 452), errors.InvalidRequest),
    **dict.fromkeys(range(500, 512), errors.ServerError),
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.ServableNotFound,
    408: errors.DeadlineExceeded,
    429: errors.Overloaded,
    501: errors.Unsupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


def test_the_table_has_every_grpc_code() -> None:
    assert set(BY_CODE) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_grpc_code_has_its_class(transport: str, server: ToyServer, code: str) -> None:
    if transport == "rest" and code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        pytest.skip("TensorFlow Serving's REST API has no status for it")
    server.fail(code, "so it is")
    with (
        make_client(transport, server.address(transport), retry=ONCE) as client,
        pytest.raises(errors.ServingError, match="so it is") as caught,
    ):
        client.retrieve(["42"])
    assert type(caught.value) is BY_CODE[code]
    assert "so it is" in (caught.value.received or "")


@pytest.mark.parametrize("status", sorted(BY_STATUS))
def test_every_http_status_has_its_class(server: ToyServer, status: int) -> None:
    server.fail(str(status), "so it is")
    with (
        make_client("rest", server.address("rest"), retry=ONCE) as client,
        pytest.raises(errors.ServingError, match=f"HTTP {status}") as caught,
    ):
        client.retrieve(["42"])
    assert type(caught.value) is BY_STATUS[status]


@pytest.mark.parametrize(
    ("code", "text", "kind", "advice"),
    [
        (
            "NOT_FOUND",
            "Op type not registered 'Scann>ScannSearchBatched' in binary running on vm.",
            errors.MissingOp,
            "shortlist serve --server embedded",
        ),
        (
            "NOT_FOUND",
            "Op type not registered 'Mine>Own' in binary running on vm.",
            errors.MissingOp,
            "a build of TensorFlow Serving that has this op",
        ),
        (
            "RESOURCE_EXHAUSTED",
            "Server Threadpool Exhausted",
            errors.Overloaded,
            "send fewer requests at a time",
        ),
    ],
)
def test_an_error_says_what_to_do(
    transport: str, server: ToyServer, code: str, text: str, kind: Any, advice: str
) -> None:
    server.fail(code, text)
    with (
        make_client(transport, server.address(transport), retry=ONCE) as client,
        pytest.raises(errors.ServingError, match=advice) as caught,
    ):
        client.retrieve(["42"])
    assert type(caught.value) is kind
    assert text in str(caught.value)


def test_the_cause_is_chained(transport: str) -> None:
    with (
        make_client(transport, "127.0.0.1:1", retry=ONCE) as client,
        pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1.*[Rr]efused") as caught,
    ):
        client.retrieve(["42"])
    assert caught.value.__cause__ is not None


def test_every_error_is_in_the_tree() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    named = [kind for kind in classes if issubclass(kind, Exception)]
    assert len(named) >= 15
    assert all(issubclass(kind, errors.ShortlistError) for kind in named)
    assert all(
        issubclass(kind, errors.ServingError) for kind in named if kind is not errors.ShortlistError
    )


@contextmanager
def answering(body: bytes, content_type: str = "application/json") -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"outputs": 5}',
        b'{"outputs": [["a"]]}',
        b'{"outputs": {"candidate_ids": 5, "scores": 5}}',
        b'{"outputs": {"candidate_ids": [["a"]], "scores": [[1.0, 2.0]]}}',
        b'{"outputs": {"candidate_ids": [["a"], ["b"]], "scores": [[1.0], [2.0]]}}',
        b'{"outputs": {"candidate_ids": [["a"]], "scores": [["b"]]}}',
        b'{"outputs": {"candidate_ids": [["a", "b"]], "scores": [[1.0, [2.0]]]}}',
        b"[" * 5000,
    ],
)
def test_answers_that_are_not_tensorflow_servings_are_protocol_errors(body: bytes) -> None:
    with (
        answering(body) as address,
        make_client("rest", address, retry=ONCE) as client,
        pytest.raises(errors.ProtocolError),
    ):
        client.retrieve(["42"], k=2 if b'["a", ' in body else 1)
