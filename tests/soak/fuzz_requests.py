"""Requests of the fuzzer: valid ones, and mutations of them."""

import base64
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from shortlist.clients.wire import messages, methods
from shortlist.serving.embedded.runtime.sample_servables import sample_name
from tests.support.recorded import MODELS

CANDIDATES = 300
# A model with a loop of any length: not under test here.
SKIPPED = ("slow",)
TOKENS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud83c", b"null", b"true"),
    *(b"NaN", b"-Infinity", b"1e400", b"-0", b"18446744073709551616", b"0.1e-400", b"[[[[[["),
    *(b'{"b64": "AA=="}', b'"instances"', b'"inputs"', b'"signature_name": "', b'"examples"'),
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x0a\x00"),
]
METHODS = (
    methods.PREDICT,
    methods.CLASSIFY,
    methods.REGRESS,
    methods.MULTI_INFERENCE,
    methods.GET_MODEL_METADATA,
    methods.GET_MODEL_STATUS,
)


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Return `data` with a few random changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.randrange(1, 12))
        kind = rng.randrange(7)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:end]
        elif kind == 2:
            out[at:at] = rng.choice(TOKENS)
        elif kind == 3:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 5:
            del out[at:]
        else:
            other = rng.choice(others)
            out[at:end] = other[rng.randrange(len(other) + 1) :]
    return bytes(out[:20_000])


def mutated_predict(data: bytes, rng: random.Random) -> bytes:
    """Return a Predict request that still parses, with a change in one of its fields."""
    request = messages.PredictRequest.FromString(data)
    sizes = (0, 1, 2, 3, 300, -1, 2**31, 2**40, 2**62)
    for tensor in list(request.inputs.values()):
        kind = rng.randrange(6)
        if kind == 0:
            tensor.dtype = rng.randrange(0, 33)  # type: ignore[assignment]
        elif kind == 1:
            del tensor.tensor_shape.dim[:]
            for _ in range(rng.choice((0, 1, 2, 3, 300))):
                tensor.tensor_shape.dim.add(size=rng.choice(sizes))
        elif kind == 2:
            tensor.tensor_content = rng.randbytes(rng.randrange(40))
        elif kind == 3:
            tensor.float_val.extend([rng.uniform(-1e38, 1e38)] * rng.randrange(1, 5))
            tensor.int_val.extend([rng.randrange(-(2**31), 2**31)] * rng.randrange(1, 5))
        elif kind == 4:
            tensor.string_val.extend(rng.randbytes(rng.randrange(30)) for _ in range(3))
        else:
            request.output_filter.append(rng.choice(("y", "nope", "candidate_ids", "")))
    if rng.randrange(4) == 0:
        request.model_spec.signature_name = rng.choice(
            ("string", "int32", "rank2_float", "gather", "two_in", "regress_x_to_y", "é", "")
        )
    return request.SerializeToString()


def rest_seeds() -> list[tuple[str, bytes]]:
    """Return paths and bodies that the server understands."""
    name = sample_name(CANDIDATES)
    seeds = [
        (f"/v1/models/{name}:predict", b'{"instances": ["1", "22", "333"]}'),
        (f"/v1/models/{name}:predict", b'{"instances": [{"user_id": "7"}, {"user_id": "8"}]}'),
        (f"/v1/models/{name}:predict", b'{"inputs": {"user_id": ["7", "8"]}}'),
        (f"/v1/models/{name}/versions/1:predict", b'{"inputs": ["a", {"b64": "YQ=="}]}'),
        (f"/v1/models/{name}:classify", b'{"examples": [{"x": 1.5}, {"y": ["a", "b"]}]}'),
    ]
    for line in recorded_lines("rest"):
        request = line["request"]
        if (
            request.get("body")
            and request["method"] == "POST"
            and request["path"].isascii()
            and not any(skipped in request["body"] for skipped in SKIPPED)
        ):
            seeds.append((request["path"], request["body"].encode()))
    return seeds


def grpc_seeds() -> list[tuple[str, bytes]]:
    """Return methods and messages that the server understands."""
    predict = messages.PredictRequest()
    predict.model_spec.name = sample_name(CANDIDATES)
    tensor = predict.inputs["user_id"]
    tensor.dtype = messages.DataType.DT_STRING
    tensor.string_val.extend([b"1", b"2"])
    tensor.tensor_shape.dim.add(size=2)
    classify = messages.ClassificationRequest()
    classify.model_spec.name = sample_name(CANDIDATES)
    classify.input.example_list.examples.add().features.feature["x"].float_list.value.append(1)
    status = messages.GetModelStatusRequest()
    status.model_spec.name = sample_name(CANDIDATES)
    seeds = [
        (methods.PREDICT.path, predict.SerializeToString()),
        (methods.CLASSIFY.path, classify.SerializeToString()),
        (methods.GET_MODEL_STATUS.path, status.SerializeToString()),
    ]
    known = {method.path for method in METHODS}
    for line in recorded_lines("grpc"):
        request = line["request"]
        if request["method"] in known and request.get("b64"):
            data = base64.b64decode(request["b64"])
            if not any(skipped.encode() in data for skipped in SKIPPED):
                seeds.append((request["method"], data))
    return seeds


def recorded_lines(suite: str) -> Iterator[dict[str, Any]]:
    for file in sorted((MODELS.parent / suite).glob("*.jsonl")):
        # Lines end at line feeds only: recorded strings contain other Unicode separators.
        with file.open(encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)
