"""An embedded server in a separate process."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from shortlist.clients.wire import messages, methods
from shortlist.serving.servers.options import claim_port

__all__ = ["ServerProcess", "serving"]


@dataclass(frozen=True, kw_only=True)
class ServerProcess:
    """A started server that writes its output to `log_file`."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    rest_port: int
    log_file: Path

    @property
    def log(self) -> str:
        """The output so far."""
        return self.log_file.read_text(errors="replace")

    def wait_open(self, *ports: int, timeout: float = 60.0) -> None:
        """Wait until the ports accept connections."""
        deadline = time.monotonic() + timeout
        while not all(map(_accepts, ports or (self.grpc_port, self.rest_port))):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server does not serve:\n{self.log}")
            time.sleep(0.05)

    def predict(self, value: float, *, model: str = "m") -> float:
        """Return the answer to one number over REST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        connection.request(
            "POST", f"/v1/models/{model}:predict", json.dumps({"instances": [value]})
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status == 200, answer
        result: float = answer["predictions"][0]
        return result

    def predict_slowly(self, n: int, channel: grpc.Channel) -> Any:
        """Start a slow call and return its future."""
        request = messages.PredictRequest()
        request.model_spec.name = "m"
        request.model_spec.signature_name = "slow"
        request.inputs["n"].dtype = messages.DataType.DT_INT32
        request.inputs["n"].tensor_shape.SetInParent()
        request.inputs["n"].int_val.append(n)
        call: Any = channel.unary_unary(methods.PREDICT.path)
        return call.future(request.SerializeToString(), timeout=60)

    def terminate(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def serving(work: Path, *flags: str, ports: Sequence[int] = ()) -> Iterator[ServerProcess]:
    """Start a server and kill it at the end of the context.

    Args:
        work: Folder of the log.
        flags: Flags in addition to the ports.
        ports: gRPC and REST port, free ones by default.
    """
    grpc_port, rest_port = ports or (claim_port(0, option=""), claim_port(0, option=""))
    log_file = work / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "shortlist.serving.embedded"),
                *(f"--port={grpc_port}", f"--rest_api_port={rest_port}", *flags),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield ServerProcess(
                process=process, grpc_port=grpc_port, rest_port=rest_port, log_file=log_file
            )
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
