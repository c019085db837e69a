"""What a malicious or broken server can cost a client is bounded, and ends in a `ServingError`."""

import gzip
import http.server
import json
import math
import random
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import grpc
import pytest

from shortlist.clients import Limits, RetrievalInterface, RetryPolicy, Split
from shortlist.clients._calls.rankings import rankings
from shortlist.clients._codecs.json import answer_of
from shortlist.clients._codecs.protobuf import reader_of
from shortlist.clients._codecs.requests import (
    MetadataRequest,
    Outputs,
    PredictRequest,
    StatusRequest,
    Target,
)
from shortlist.clients._codecs.tensors import JsonTensor
from shortlist.clients.errors import (
    DeadlineExceeded,
    ProtocolError,
    ServerError,
    ServingError,
    Unavailable,
)
from shortlist.clients.testing import FakeModel, FakeServer
from shortlist.clients.wire import messages
from tests.unit.clients.conftest import make_client

ONCE = RetryPolicy(max_attempts=1)
MB = 2**20
Respond = Callable[[socket.socket], None]


@contextmanager
def rest_server(respond: Respond) -> Iterator[str]:
    """Serve raw bytes: `respond` writes the answer to each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def handle(connection: socket.socket) -> None:
            with connection:
                connection.recv(65536)
                try:
                    respond(connection)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # a close with unread bytes is a reset
                        pass
                except OSError:  # the client hung up
                    return

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                if stop.is_set():
                    connection.close()
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join(5)


@contextmanager
def peak_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def _head(*lines: str) -> bytes:
    return "\r\n".join(
        ["HTTP/1.1 200 OK", "Content-Type: application/json", *lines, "", ""]
    ).encode()


def _endlessly(head: bytes, piece: bytes, pause: float = 0.0) -> Respond:
    def respond(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            if pause:
                time.sleep(pause)

    return respond


_SPACES = b"10000\r\n" + b" " * 0x10000 + b"\r\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (_head(), b" " * 65536),
        (_head("Transfer-Encoding: chunked"), _SPACES),
        (_head("Content-Length: 99999999999"), b" " * 65536),
    ],
    ids=["until it closes", "chunked", "announced"],
)
def test_an_endless_answer_is_cut_off(head: bytes, piece: bytes) -> None:
    limits = Limits(max_answer_bytes=MB)
    with (
        rest_server(_endlessly(head, piece)) as address,
        make_client("rest", address, limits=limits, timeout=10) as client,
        peak_below(8 * MB),
        pytest.raises(ProtocolError, match=r"more than 1048576 bytes.*max_answer_bytes"),
    ):
        client.retrieve(["42"])


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (_head("Content-Length: 1000"), b" "),
        (_head("Transfer-Encoding: chunked"), b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (_head("Transfer-Encoding: chunked") + b"0\r\n", b"a: b\r\n"),
    ],
    ids=["body", "chunks", "header line", "headers", "continue", "trailers"],
)
def test_the_deadline_holds_for_every_byte(head: bytes, piece: bytes) -> None:
    started = time.monotonic()
    with (
        rest_server(_endlessly(head, piece, pause=0.02)) as address,
        make_client("rest", address, timeout=0.5, retry=ONCE) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.retrieve(["42"])
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("head", "piece"),
    [(b"HTTP/1.1 200 OK\r\n", b"a" * 65536), (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000)],
    ids=["one line", "many lines"],
)
def test_headers_without_end_are_refused(head: bytes, piece: bytes) -> None:
    with (
        rest_server(_endlessly(head, piece)) as address,
        make_client("rest", address, timeout=10, retry=ONCE) as client,
        peak_below(8 * MB),
        pytest.raises((Unavailable, ProtocolError)),
    ):
        client.retrieve(["42"])


def _whole(body: bytes, *lines: str, status: str = "200 OK") -> Respond:
    head = _head(*lines, f"Content-Length: {len(body)}", "Connection: close")
    return lambda connection: connection.sendall(head.replace(b"200 OK", status.encode()) + body)


@pytest.mark.parametrize(
    ("body", "lines", "text"),
    [
        (gzip.compress(b"[" + b"[]," * 30 * MB), ["Content-Encoding: gzip"], "more than 67108864"),
        (gzip.compress(b"{}") * 2, ["Content-Encoding: gzip"], "goes on after its end"),
        (gzip.compress(b"{}")[:-5], ["Content-Encoding: gzip"], "cut off"),
        (b"no gzip", ["Content-Encoding: gzip"], "is not the gzip that it claims to be"),
        (b"{}", ["Content-Encoding: br"], "encoded as 'br', which was not asked for"),
        (b"{}", ["Content-Encoding: gzip, gzip, gzip"], "which was not asked for"),
        (b"[" + b"[]," * 5 * MB + b"[]]", [], "more than 1000000 lists and objects"),
        (b"[" * 100_000, [], "not JSON"),
        (b'{"outputs":' + b"[" * 900 + b"]" * 900 + b"}", [], "a single output without a name"),
        (b'{"outputs":{"candidate_ids":[["a"]],"scores":[["a"]]}}', [], "unreadable"),
        (
            b'{"outputs":{"candidate_ids":[["a"]],"scores":[[1%s]]}}' % (b"0" * 400),
            [],
            "unreadable",
        ),
        (
            b'{"outputs":{"candidate_ids":[["a"]],"scores":[[1]],"servable_version":[1e999]}}',
            [],
            "OverflowError",
        ),
        (
            b'{"outputs":{"candidate_ids":[["a"]],"scores":[[1]],"known_user":["yes"]}}',
            [],
            "not bool",
        ),
    ],
    ids=range(13),
)
def test_bad_bodies_are_protocol_errors(body: bytes, lines: list[str], text: str) -> None:
    with (
        rest_server(_whole(body, *lines)) as address,
        make_client("rest", address, timeout=20, retry=ONCE) as client,
        pytest.raises(ProtocolError, match=text),
    ):
        client.retrieve(["42"], k=1)


def test_a_huge_error_costs_little() -> None:
    body = json.dumps({"error": "x" * 30 * MB}).encode()
    with (
        rest_server(_whole(body, status="500 Internal Server Error")) as address,
        make_client("rest", address, retry=ONCE) as client,
        peak_below(8 * MB + len(body)),  # the server's own copy counts too
        pytest.raises(ServerError) as caught,
    ):
        client.retrieve(["42"])
    assert len(str(caught.value)) < 1000
    assert "(the body has more than 1000000 bytes); see the server's log" in str(caught.value)


def test_an_error_without_a_readable_body_says_so() -> None:
    body = gzip.compress(b'{"error": "x"}')[:-5]
    with (
        rest_server(
            _whole(body, "Content-Encoding: gzip", status="500 Internal Server Error")
        ) as address,
        make_client("rest", address, retry=ONCE) as client,
        pytest.raises(ServerError, match=r"HTTP 500: \(the body is gzip that was cut off"),
    ):
        client.retrieve(["42"])


def test_a_hostile_error_is_read_in_linear_time() -> None:
    body = json.dumps({"error": "@ " + "/" * 900_000}).encode()
    started = time.monotonic()
    with (
        rest_server(_whole(body, status="500 Internal Server Error")) as address,
        make_client("rest", address, retry=ONCE) as client,
        pytest.raises(ServerError, match="HTTP 500: @ //"),
    ):
        client.retrieve(["42"])
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_a_redirect_does_not_take_the_token_along(status: str) -> None:
    class Thief(http.server.BaseHTTPRequestHandler):
        asked: ClassVar[list[str]] = []

        def handle(self) -> None:
            self.asked.append("connected")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Thief) as thief:
        thread = threading.Thread(target=thief.serve_forever, args=(0.02,))
        thread.start()
        place = f"Location: http://127.0.0.1:{thief.server_address[1]}/"
        with (
            rest_server(_whole(b"", place, status=f"{status} Moved")) as address,
            make_client("rest", address, headers={"authorization": "Bearer abc"}) as client,
            pytest.raises(ProtocolError),
        ):
            client.retrieve(["42"])
        thief.shutdown()
        thread.join()
    assert not Thief.asked


# --- gRPC ------------------------------------------------------------------------


@contextmanager
def grpc_server(answer: Any, *, zipped: bool = False) -> Iterator[str]:
    """Answer every call with the same bytes."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        if zipped:
            context.set_compression(grpc.Compression.Gzip)
        return bytes(answer)

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(handle)

    pool = ThreadPoolExecutor(2)
    options = [("grpc.max_send_message_length", -1)]
    server = grpc.server(pool, handlers=[Handler()], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(5)
        pool.shutdown(wait=True)


@pytest.mark.parametrize("kind", ["grpc", "aio"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_huge_message_is_refused_before_and_after_unzipping(kind: str, zipped: bool) -> None:
    limits = Limits(max_answer_bytes=MB)
    with (
        grpc_server(b"\x12\x80\x80\x80\x04" + bytes(8 * MB), zipped=zipped) as address,
        make_client(kind, address, limits=limits, timeout=20) as client,
        pytest.raises(ProtocolError, match=r"larger than max.*max_answer_bytes"),
    ):
        client.retrieve(["42"])


def _tensor(dtype: str, shape: list[int], **values: Any) -> messages.TensorProto:
    tensor = messages.TensorProto(dtype=dtype, **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _predicted(ids: Any, scores: Any, **others: Any) -> bytes:
    response = messages.PredictResponse()
    for name, tensor in {"candidate_ids": ids, "scores": scores, **others}.items():
        response.outputs[name].CopyFrom(tensor)
    return bytes(response.SerializeToString())


_IDS = _tensor("DT_STRING", [1, 1], string_val=[b"a"])
_SCORES = _tensor("DT_FLOAT", [1, 1], float_val=[1.0])


@pytest.mark.parametrize(
    "answer",
    [
        _predicted(_tensor("DT_STRING", [1, 2**40]), _tensor("DT_FLOAT", [1, 2**40])),
        _predicted(_tensor("DT_STRING", [1, 2**62, 4]), _SCORES),
        _predicted(_tensor("DT_STRING", [2**40, 0]), _tensor("DT_FLOAT", [2**40, 0])),
        _predicted(_tensor("DT_STRING", [1] * 1000), _SCORES),
        _predicted(_IDS, _tensor("DT_STRING", [1, 1], string_val=[b"a"])),
        _predicted(_IDS, _tensor("DT_INT64", [1, 2**33])),
        _predicted(_tensor("DT_STRING", [1, 1], string_val=[b"\xff"]), _SCORES),
        _predicted(_IDS, _SCORES, known_user=_tensor("DT_BOOL", [2**40])),
        _predicted(_IDS, _SCORES, known_user=_tensor("DT_STRING", [1])),
        _predicted(_IDS, _SCORES, known_user=_tensor("DT_RESOURCE", [1])),
    ],
    ids=range(10),
)
def test_tensors_that_promise_too_much_are_protocol_errors(answer: bytes) -> None:
    with (
        grpc_server(answer) as address,
        make_client("grpc", address, retry=ONCE) as client,
        peak_below(16 * MB),
        pytest.raises(ProtocolError),
    ):
        client.retrieve(["42"], k=1)


def test_a_million_candidates_cost_only_those_asked_for() -> None:
    ids = _tensor("DT_STRING", [1, 500_000], string_val=[b"a"] * 500_000)
    scores = _tensor("DT_FLOAT", [1, 500_000], tensor_content=bytes(2_000_000))
    with (
        grpc_server(_predicted(ids, scores)) as address,
        make_client("grpc", address) as client,
        peak_below(40 * MB),
    ):
        (retrieval,) = client.retrieve(["42"], k=10)
    assert len(retrieval) == 10


def test_random_answers_raise_serving_errors_only() -> None:
    dice = random.Random(5)
    target = Target(model="m")
    predict = PredictRequest(target=target, signature="s", inputs={})
    whole = _predicted(
        _IDS,
        _SCORES,
        known_user=_tensor("DT_BOOL", [1], bool_val=[True]),
        n=_tensor("DT_INT64", [2]),
    )
    read = errors = 0
    for _ in range(3000):
        raw = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        try:
            message = messages.PackedPredictResponse.FromString(bytes(raw))
        except Exception:
            continue
        try:
            reply = reader_of(predict, message)
            rankings(reply, 1, 1, target)
            read += 1
        except ServingError:
            errors += 1
    assert read > 100
    assert errors > 100


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (StatusRequest(target=Target(model="m")), {"model_version_status": [{"version": 1e400}]}),
        (
            StatusRequest(target=Target(model="m")),
            {"model_version_status": [{"version": "9" * 5000}]},
        ),
        (StatusRequest(target=Target(model="m")), {"model_version_status": [7]}),
        (MetadataRequest(target=Target(model="m")), {"metadata": {"signature_def": []}}),
    ],
)
def test_other_answers_of_another_form_are_protocol_errors(request_: Any, body: Any) -> None:
    with pytest.raises(ProtocolError):
        answer_of(request_, json.dumps(body).encode())


def test_unreadable_metadata_are_a_protocol_error() -> None:
    message = messages.GetModelMetadataResponse()
    message.metadata["signature_def"].value = b"\xff\xff"
    with pytest.raises(ProtocolError, match="metadata of 'm' is unreadable"):
        reader_of(MetadataRequest(target=Target(model="m")), message)


# --- NaN ------------------------------------------------------------------------


@pytest.fixture
def broken(transport: str) -> Iterator[Any]:
    """A client of a server whose first user gets NaN in different places."""
    rows: dict[str, Sequence[tuple[str, float]]] = {
        "first": [("a", math.nan), ("b", 1.0)],
        "last": [("a", 1.0), ("b", math.nan)],
        "all": [("a", math.nan), ("b", math.nan)],
        "padded": [("a", math.nan), ("", -math.inf)],
        "right": [("a", 1.0), ("", -math.inf)],
    }
    model = FakeModel(rankings=rows, labels={"stable": 1})
    with FakeServer({"retrieval_brute_force": model}) as server:
        address = server.rest_address if transport == "rest" else server.grpc_address
        with make_client(transport, address) as client:
            yield client


@pytest.mark.parametrize("user", ["first", "last", "all", "padded"])
def test_a_score_that_is_nan_is_an_error_of_the_servable(broken: Any, user: str) -> None:
    text = r"'retrieval_brute_force' \(version \d+\) answered NaN as a score of row 1 of"
    with pytest.raises(ServerError, match=text):
        broken.retrieve(["right", user], k=2)
    with pytest.raises(ServerError, match=r"label 'stable'.*NaN"):
        broken.retrieve([user], k=2, label=Split({"stable": 1.0}))
    assert list(broken.retrieve(["right"], k=2)[0]) == [("a", 1.0)]


def test_the_padding_of_a_foreign_index_may_be_nan() -> None:
    """TFRS' layer for ScaNN pads short rows with NaN."""
    names = RetrievalInterface(ids="output_2", scores="output_1")
    rank = partial(rankings, size=1, k=3, target=Target(model="m"), interface=names)

    def reply(*scores: float) -> Outputs:
        ids = [[f"c{index}" for index in range(len(scores))]]
        return Outputs(tensors={"output_2": JsonTensor(ids), "output_1": JsonTensor([[*scores]])})

    assert rank(reply(2.0, 1.0, math.nan)) == ([("c0", "c1")], [(2.0, 1.0)])
    for scores in ((math.nan, math.nan), (2.0, math.nan, 1.0)):
        with pytest.raises(ServerError, match="NaN"):
            rank(reply(*scores))
