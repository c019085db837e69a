"""A server that repeats prepared answers, so that a benchmark measures only the client.

`python -m shortlist.clients.bench.server` prints its gRPC and REST ports and runs until its
standard input closes.
"""

import json
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import grpc

from shortlist.clients import contract
from shortlist.clients.wire import messages, methods

__all__ = ["ARRAY_SIZE", "BATCHES", "main"]

TOP_K: Final = contract.DEFAULT_TOP_K
BATCHES: Final = (1, 1000)
ARRAY_SIZE: Final = 1_000_000  # float32 elements
MODEL: Final = "bench"


def _ranking(batch: int) -> tuple[list[list[str]], list[list[float]]]:
    names = [[f"candidate {row % 7} {i}" for i in range(TOP_K)] for row in range(batch)]
    scores = [[1.0 - i / 1024 for i in range(TOP_K)] for _ in range(batch)]
    return names, scores


def _retrieval_message(batch: int) -> bytes:
    """Return an answer in TensorFlow Serving's form: every value in its typed field."""
    names, scores = _ranking(batch)
    answer = messages.PredictResponse()
    answer.model_spec.name = MODEL
    answer.model_spec.version.value = 1
    ids = answer.outputs[contract.CANDIDATE_IDS]
    ids.dtype = messages.DataType.DT_STRING
    ids.string_val.extend([name.encode() for row in names for name in row])
    floats = answer.outputs[contract.SCORES]
    floats.dtype = messages.DataType.DT_FLOAT
    floats.float_val.extend([score for row in scores for score in row])
    for tensor in (ids, floats):
        for size in (batch, TOP_K):
            tensor.tensor_shape.dim.add(size=size)
    return answer.SerializeToString()


def _array_message() -> bytes:
    answer = messages.PredictResponse()
    answer.model_spec.name = MODEL
    answer.model_spec.version.value = 1
    tensor = answer.outputs["y"]
    tensor.dtype = messages.DataType.DT_FLOAT
    tensor.tensor_shape.dim.add(size=ARRAY_SIZE)
    tensor.float_val.extend(struct.unpack(f"<{ARRAY_SIZE}f", bytes(4 * ARRAY_SIZE)))
    return answer.SerializeToString()


def _metadata_message() -> bytes:
    signatures = messages.SignatureDefMap()
    array = signatures.signature_def["array"]
    for side, name in ((array.inputs, "x"), (array.outputs, "y")):
        side[name].dtype = messages.DataType.DT_FLOAT
        side[name].tensor_shape.dim.add(size=-1)
    answer = messages.GetModelMetadataResponse()
    answer.model_spec.name = MODEL
    answer.metadata["signature_def"].value = signatures.SerializeToString()
    return answer.SerializeToString()


class _Answers(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._by_batch = {batch: _retrieval_message(batch) for batch in BATCHES}
        self._array = _array_message()
        self._metadata = _metadata_message()

    def service(self, details: Any) -> Any:
        run = {
            methods.PREDICT.path: self._predict,
            methods.GET_MODEL_METADATA.path: lambda request, context: self._metadata,
        }.get(details.method)
        return None if run is None else grpc.unary_unary_rpc_method_handler(run)

    def _predict(self, request: bytes, context: Any) -> bytes:
        if len(request) > ARRAY_SIZE:
            return self._array
        return self._by_batch[1 if len(request) < 200 else BATCHES[-1]]


def _rest_handler() -> type[BaseHTTPRequestHandler]:
    bodies = {}
    for batch in BATCHES:
        names, scores = _ranking(batch)
        outputs = {contract.CANDIDATE_IDS: names, contract.SCORES: scores}
        bodies[batch] = json.dumps({"outputs": outputs}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # one packet for headers and body

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self.rfile.read(length)
            body = bodies[1 if length < 200 else BATCHES[-1]]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    return Handler


def main() -> int:
    """Serve until standard input closes."""
    server = grpc.server(
        ThreadPoolExecutor(4),
        handlers=[_Answers()],
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), _rest_handler())
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    sys.stdout.write(f"{grpc_port} {rest.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    rest.shutdown()
    server.stop(0).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
