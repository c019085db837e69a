"""Times the clients' calls, in turn with bare calls, in a separate process.

`python -m shortlist.clients.bench.calls GRPC_ADDRESS REST_ADDRESS MODEL CALLS [stub]` prints JSON:
seconds of the median call by case and caller.
"""

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import grpc

from shortlist.clients import GrpcClient, RestClient, ShardedClient, contract
from shortlist.clients.bench.server import ARRAY_SIZE, BATCHES, MODEL
from shortlist.clients.cli.output import write_json
from shortlist.clients.types import Retrieval

__all__ = ["main"]

Call = Callable[[], object]


def _median_in_turn(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """Return median seconds by name; calls take turns, so that other work affects all of them."""
    for call in calls.values():
        for _ in range(max(3, repeats // 20)):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


class _Stub:
    """Calls as written by hand with `tensorflow-serving-api`."""

    def __init__(self, address: str, model: str) -> None:
        self._model = model
        # By name, as neither this package nor its users depend on it.
        self._tf: Any = importlib.import_module("tensorflow")
        self._predict: Any = importlib.import_module("tensorflow_serving.apis.predict_pb2")
        stubs: Any = importlib.import_module("tensorflow_serving.apis.prediction_service_pb2_grpc")
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = stubs.PredictionServiceStub(self._channel)

    def retrieve(self, users: list[str], k: int) -> list[Any]:
        request = self._predict.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = contract.SERVING_DEFAULT
        tensor = request.inputs[contract.USER_ID]
        tensor.dtype = 7  # DT_STRING
        tensor.tensor_shape.dim.add(size=len(users))
        tensor.string_val.extend([user.encode() for user in users])
        response = self._stub.Predict(request, timeout=5.0)
        names = response.outputs[contract.CANDIDATE_IDS].string_val
        scores = response.outputs[contract.SCORES].float_val
        width = len(scores) // len(users)
        return [
            (
                [name.decode() for name in names[row * width : row * width + k]],
                list(scores[row * width : row * width + k]),
            )
            for row in range(len(users))
        ]

    def array(self, x: Any) -> Any:
        request = self._predict.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = "array"
        request.inputs["x"].CopyFrom(self._tf.make_tensor_proto(x))
        response = self._stub.Predict(request, timeout=30.0)
        return self._tf.make_ndarray(response.outputs["y"])


def _bare_rest(address: str, model: str) -> Callable[[list[str]], object]:
    session: Any = importlib.import_module("requests").Session()  # not a dependency of the clients
    url = f"http://{address}/v1/models/{model}:predict"

    def call(users: list[str]) -> object:
        return session.post(url, json={"inputs": {contract.USER_ID: users}}, timeout=5).json()

    return call


class _Prepared(GrpcClient):
    """A client that answers at once, so that only the work of `ShardedClient` takes time."""

    def __init__(self, answer: list[Retrieval]) -> None:
        super().__init__()
        self._answer = answer

    def retrieve(self, *args: Any, **kwargs: Any) -> list[Retrieval]:
        return self._answer


def _sharded(ours: GrpcClient, calls: int) -> dict[str, dict[str, float]]:
    """Return medians for the shards of a model, which the same server answers for."""
    users, count, k = ["user 0"], 4, contract.DEFAULT_TOP_K
    one = partial(ours.retrieve, users, k=k)
    whole = ShardedClient([ours] * count, model=MODEL)
    merged = ShardedClient([_Prepared(one())] * count, model=MODEL)
    return {
        f"grpc, {count} shards, k={k}": _median_in_turn(
            {"ShardedClient": partial(whole.retrieve, users, k=k), "one shard": one}, calls
        ),
        f"no server, {count} shards, k={k}": _median_in_turn(
            {"ShardedClient": partial(merged.retrieve, users, k=k), "one shard": one}, calls
        ),
    }


def main(argv: list[str]) -> int:
    """Print the medians."""
    grpc_address, rest_address, model, calls = argv[0], argv[1], argv[2], int(argv[3])
    stub = _Stub(grpc_address, model) if argv[4:] == ["stub"] else None
    medians = {}
    with (
        GrpcClient(grpc_address, model=model, timeout=30) as ours,
        RestClient(rest_address, model=model, timeout=30) as ours_rest,
    ):
        bare_rest = _bare_rest(rest_address, model) if find_spec("requests") else None
        for batch in BATCHES:
            users = [f"user {i}" for i in range(batch)]
            repeats = calls if batch == 1 else max(10, calls // 40)
            name = f"{batch} user{'s' if batch > 1 else ''}, k=10"
            case: dict[str, Call] = {"GrpcClient": partial(ours.retrieve, users, k=10)}
            if stub is not None:
                case["stub"] = partial(stub.retrieve, users, 10)
            medians[f"grpc, {name}"] = _median_in_turn(case, repeats)
            case = {"RestClient": partial(ours_rest.retrieve, users, k=10)}
            if bare_rest is not None:
                case["requests"] = partial(bare_rest, users)
            medians[f"rest, {name}"] = _median_in_turn(case, repeats)
        if model == MODEL:
            medians |= _sharded(ours, calls)
            numpy: Any = importlib.import_module("numpy")
            x = numpy.ones(ARRAY_SIZE, numpy.float32)
            case = {"GrpcClient": partial(ours.predict, {"x": x}, signature="array")}
            if stub is not None:
                case["stub"] = partial(stub.array, x)
            medians[f"grpc, {ARRAY_SIZE:,} float32 in and out"] = _median_in_turn(case, 20)
    write_json(medians, indent=None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
