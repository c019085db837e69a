"""What the fake server knows: a toy retrieval model, its versions, and failures on request.

Texts are the genuine server's.
"""

import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shortlist.clients import contract
from shortlist.clients.wire import messages

TOP_K = 10
CANDIDATES = [f"c{i:02d}" for i in range(25)] + ["Amélie (2001)", "七人の侍"]
GENRES = {name: "even" if i % 2 == 0 else "odd" for i, name in enumerate(CANDIDATES)}
YEARS = {name: 1990 + i for i, name in enumerate(CANDIDATES)}
STRANGER = "stranger"
SEEN = {"42": ["c00", "c01"]}

HTTP_BY_CODE = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def float32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def score(query: str, candidate: str) -> float:
    return float32(zlib.crc32(f"{query}/{candidate}".encode()) / 2**32)


def ranking(query: str, allowed: list[str] | None = None) -> list[tuple[str, float]]:
    """The right answer: all allowed candidates, best first."""
    names = CANDIDATES if allowed is None else allowed
    return sorted(((name, score(query, name)) for name in names), key=lambda pair: -pair[1])


class Refusal(Exception):  # noqa: N818
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


SIGNATURES: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = {
    "serving_default": {
        "inputs": {"user_id": ("DT_STRING", [-1])},
        "outputs": {
            "candidate_ids": ("DT_STRING", [-1, TOP_K]),
            "scores": ("DT_FLOAT", [-1, TOP_K]),
            "known_user": ("DT_BOOL", [-1]),
            "servable_version": ("DT_INT64", [-1]),
        },
    },
    "retrieve": {
        "inputs": {
            "user_id": ("DT_STRING", [-1]),
            "k": ("DT_INT32", []),
            "exclude": ("DT_STRING", [-1, -1]),
            "exclude_seen": ("DT_BOOL", []),
            "filter_any": ("DT_STRING", [-1]),
            "filter_all": ("DT_STRING", [-1]),
            "filter_min": ("DT_STRING", [-1]),
            "filter_max": ("DT_STRING", [-1]),
        },
        "outputs": {
            "candidate_ids": ("DT_STRING", [-1, -1]),
            "scores": ("DT_FLOAT", [-1, -1]),
            "known_user": ("DT_BOOL", [-1]),
            "servable_version": ("DT_INT64", [-1]),
        },
    },
    "similar": {
        "inputs": {"candidate_id": ("DT_STRING", [-1]), "k": ("DT_INT32", [])},
        "outputs": {
            "candidate_ids": ("DT_STRING", [-1, -1]),
            "scores": ("DT_FLOAT", [-1, -1]),
            "known_candidate": ("DT_BOOL", [-1]),
            "servable_version": ("DT_INT64", [-1]),
        },
    },
    "embed": {
        "inputs": {"user_id": ("DT_STRING", [-1])},
        "outputs": {"query_embedding": ("DT_FLOAT", [-1, 3])},
    },
    "rate": {
        "inputs": {"user_id": ("DT_STRING", [-1]), "candidate_id": ("DT_STRING", [-1])},
        "outputs": {"rating": ("DT_FLOAT", [-1])},
    },
    "echo": {
        "inputs": {
            "x": ("DT_FLOAT", [-1, 2]),
            "n": ("DT_INT64", []),
            "flags": ("DT_BOOL", [-1]),
            "blob_bytes": ("DT_STRING", [-1]),
        },
        "outputs": {
            "x": ("DT_FLOAT", [-1, 2]),
            "n": ("DT_INT64", []),
            "flags": ("DT_BOOL", [-1]),
            "blob_bytes": ("DT_STRING", [-1]),
        },
    },
    "half_plus_two": {
        "inputs": {"x": ("DT_FLOAT", [-1])},
        "outputs": {"y": ("DT_FLOAT", [-1])},
    },
}


@dataclass
class Servable:
    states: dict[int, tuple[str, str]] = field(default_factory=lambda: {1: ("AVAILABLE", "")})
    labels: dict[str, int] = field(default_factory=dict)
    signatures: dict[str, Any] = field(default_factory=lambda: dict(SIGNATURES))

    def resolve(self, name: str, version: int | None, label: str | None) -> int:
        available = [v for v, (state, _) in self.states.items() if state == "AVAILABLE"]
        if label is not None:
            if label not in self.labels:
                raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        if version is None and available:
            return max(available)
        if version not in available:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {wanted}")
        assert version is not None
        return version


Values = Mapping[str, Any]


class Backend:
    """The models, what was asked of them, and the failures to come."""

    def __init__(self) -> None:
        self.servables: dict[str, Servable] = {
            contract.servable_name("retrieval", index): Servable(
                states={1: ("AVAILABLE", ""), 2: ("AVAILABLE", "")},
                labels={"stable": 1, "canary": 2},
            )
            for index in ("brute_force", "ivf")
        }
        # Some servables fix the k of `similar` at export.
        self.servables["retrieval_ivf"].signatures["similar"] = {
            **SIGNATURES["similar"],
            "inputs": {"candidate_id": ("DT_STRING", [-1])},
        }
        self.faults: deque[tuple[str, str]] = deque()  # (code or HTTP status, text)
        self.calls: list[tuple[str, str, int]] = []  # operation, signature or model, batch
        self.headers: list[dict[str, str]] = []
        self.configs: list[messages.ModelServerConfig] = []
        self.delay = 0.0
        self.busy = threading.Semaphore(64)
        self.lock = threading.Lock()
        self.active = 0
        self.most_active = 0
        self.release = threading.Event()
        self.release.set()

    @contextmanager
    def entered(
        self, operation: str, what: str, batch: int, headers: dict[str, str]
    ) -> Iterator[None]:
        with self.lock:
            self.calls.append((operation, what, batch))
            self.headers.append(headers)
            self.active += 1
            self.most_active = max(self.active, self.most_active)
            fault = self.faults.popleft() if self.faults else None
        try:
            self.release.wait(10)
            if fault is not None:
                raise Refusal(*fault)
            yield
        finally:
            with self.lock:
                self.active -= 1

    def servable(self, name: str) -> Servable:
        found = self.servables.get(name)
        if found is None:
            raise Refusal("NOT_FOUND", f"Servable not found for request: Latest({name})")
        return found

    def status(self, name: str, version: int | None) -> list[tuple[int, str, str]]:
        found = self.servables.get(name)
        if found is None or not found.states:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in found.states:
            raise Refusal("NOT_FOUND", f"Could not find version {version} of model {name}")
        return [
            (number, state, error)
            for number, (state, error) in sorted(found.states.items(), reverse=True)
            if version in (None, number)
        ]

    def predict(self, signature: str, inputs: Values, version: int) -> dict[str, tuple[str, Any]]:
        """Outputs as (dtype, nested lists) by name."""
        if signature in ("serving_default", "retrieve"):
            return self._retrieve(signature, inputs, version)
        if signature == "similar":
            rows = [
                [pair for pair in ranking(one) if pair[0] != one][: inputs.get("k", TOP_K)]
                for one in inputs["candidate_id"]
            ]
            known = [one in CANDIDATES for one in inputs["candidate_id"]]
            return {**self._rows(rows, version), "known_candidate": ("DT_BOOL", known)}
        if signature == "embed":
            vectors = [[score(one, str(i)) for i in range(3)] for one in inputs["user_id"]]
            return {"query_embedding": ("DT_FLOAT", vectors)}
        if signature == "rate":
            pairs = zip(inputs["user_id"], inputs["candidate_id"], strict=True)
            return {"rating": ("DT_FLOAT", [score(*pair) for pair in pairs])}
        if signature == "half_plus_two":
            return {"y": ("DT_FLOAT", [value / 2 + 2 for value in inputs["x"]])}
        outputs = SIGNATURES[signature]["outputs"]
        echoed = dict(inputs)
        if "x" in echoed:  # JSON's whole numbers are floats by now
            echoed["x"] = [[float(value) for value in row] for row in echoed["x"]]
        return {name: (outputs[name][0], value) for name, value in echoed.items()}

    def _retrieve(self, signature: str, inputs: Values, version: int) -> dict[str, tuple[str, Any]]:
        k = int(inputs.get("k", TOP_K))
        rows = []
        for index, user in enumerate(inputs["user_id"]):
            allowed = [name for name in CANDIDATES if _passes(name, inputs)]
            gone = set(inputs["exclude"][index]) if "exclude" in inputs else set()
            if inputs.get("exclude_seen"):
                gone |= set(SEEN.get(user, []))
            best = ranking(user, [name for name in allowed if name not in gone])[:k]
            rows.append(best + [("", float("-inf"))] * (min(k, len(CANDIDATES)) - len(best)))
        known = [user != STRANGER for user in inputs["user_id"]]
        return {**self._rows(rows, version), "known_user": ("DT_BOOL", known)}

    def _rows(self, rows: list[list[tuple[str, float]]], version: int) -> dict[str, Any]:
        return {
            "candidate_ids": ("DT_STRING", [[name for name, _ in row] for row in rows]),
            "scores": ("DT_FLOAT", [[value for _, value in row] for row in rows]),
            "servable_version": ("DT_INT64", [version] * len(rows)),
        }


def _passes(name: str, inputs: Values) -> bool:
    facts = {f"genre={GENRES[name]}", f"year={YEARS[name]}"}
    any_of, all_of = inputs.get("filter_any", []), inputs.get("filter_all", [])
    if any_of and not facts & set(any_of):
        return False
    if not set(all_of) <= facts:
        return False
    for bound in inputs.get("filter_min", []):
        if YEARS[name] < float(bound.removeprefix("year=")):
            return False
    return all(
        YEARS[name] <= float(bound.removeprefix("year=")) for bound in inputs.get("filter_max", [])
    )


def check_inputs(servable: Servable, signature: str, names: set[str], rest: bool) -> None:
    found = servable.signatures.get(signature)
    if found is None:
        if rest:
            text = f'Serving signature name: "{signature}" not found in signature def'
            raise Refusal("INVALID_ARGUMENT", text)
        raise Refusal("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
    wanted = set(found["inputs"])
    if names != wanted:
        raise Refusal(
            "INVALID_ARGUMENT",
            f"input size does not match signature: {len(names)}!={len(wanted)} "
            f"Sent extra: {{{','.join(sorted(names - wanted))}}}. "
            f"Missing but required: {{{','.join(sorted(wanted - names))}}}.",
        )
