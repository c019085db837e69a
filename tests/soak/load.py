"""Mixed load over REST and gRPC, at a given rate or as fast as the server answers."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc

from shortlist.clients import contract
from shortlist.clients.wire import messages, methods

__all__ = ["Load", "Outcome", "Target"]

TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """Target of the load: ports, and models that have a label `stable`."""

    grpc_port: int
    rest_port: int
    models: Sequence[str]


@dataclass
class Outcome:
    """Latencies and failures of the requests."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Number of requests, including failed ones."""
        return len(self.latencies) + len(self.failures)

    def percentile(self, share: float) -> float:
        """Return the latency in seconds within which this share of the requests was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class _Worker:
    """A client with one connection per transport; it never retries."""

    def __init__(self, target: Target, seed: int) -> None:
        self._random = random.Random(seed)
        self._models = target.models
        self._http = http.client.HTTPConnection("127.0.0.1", target.rest_port, timeout=TIMEOUT)
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{target.grpc_port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._predict = self._channel.unary_unary(
            methods.PREDICT.path,
            request_serializer=messages.PredictRequest.SerializeToString,
            response_deserializer=messages.PredictResponse.FromString,
        )

    def close(self) -> None:
        self._http.close()
        self._channel.close()

    def send(self) -> str | None:
        """Send a request; return what is wrong with the answer, if anything."""
        model = self._random.choice(self._models)
        label = self._random.random() < 0.5
        users = [
            f"user-{self._random.randrange(1000)}" for _ in range(self._random.choice((1, 1, 1, 8)))
        ]
        ask = self._rest if self._random.random() < 0.5 else self._grpc
        try:
            return ask(model, label, users)
        except Exception as exc:
            self._http.close()  # the next request opens it again
            return f"{model}: {type(exc).__name__}: {exc}"

    def _rest(self, model: str, label: bool, users: Sequence[str]) -> str | None:
        path = f"/v1/models/{model}{'/labels/stable' if label else ''}:predict"
        body = json.dumps({"instances": users})
        self._http.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._http.getresponse()
        answer = response.read()
        if response.status != 200:
            return f"REST {response.status}: {answer[:300]!r}"
        rows = json.loads(answer)["predictions"]
        if len(rows) != len(users) or any(len(row[contract.SCORES]) != 10 for row in rows):
            return f"REST: not the rows asked for: {answer[:300]!r}"
        return None

    def _grpc(self, model: str, label: bool, users: Sequence[str]) -> str | None:
        request = messages.PredictRequest()
        request.model_spec.name = model
        if label:
            request.model_spec.version_label = "stable"
        tensor = request.inputs[contract.USER_ID]
        tensor.dtype = messages.DataType.DT_STRING
        tensor.tensor_shape.dim.add(size=len(users))
        tensor.string_val.extend(user.encode() for user in users)
        response = self._predict(request, timeout=TIMEOUT)
        if len(response.outputs[contract.SCORES].float_val) != 10 * len(users):
            return f"gRPC: not the rows asked for: {response}"[:300]
        return None


class Load:
    """Load from several clients in the background.

    Args:
        target: Ports and models.
        workers: Number of clients.
        rate: Requests per second of all clients; None for as many as the server answers.
    """

    def __init__(self, target: Target, *, workers: int, rate: float | None = None) -> None:
        self.outcome = Outcome()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._interval = workers / rate if rate is not None else 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(_Worker(target, seed),), daemon=True)
            for seed in range(workers)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT)

    def _run(self, worker: _Worker) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            started = time.monotonic()
            complaint = worker.send()
            took = time.monotonic() - started
            with self._lock:
                if complaint is None:
                    self.outcome.latencies.append(took)
                else:
                    self.outcome.failures.append(complaint)
            # Catch up on at most one interval: a pause of the server must not cause a burst.
            due = max(due + self._interval, time.monotonic() - self._interval)
            self._stop.wait(max(due - time.monotonic(), 0.0))
        worker.close()


def capacity(make: Callable[[], Load], seconds: float) -> float:
    """Return the requests per second that the server answers when clients do not pause."""
    with make() as load:
        started = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - started
        return load.outcome.requests / elapsed
