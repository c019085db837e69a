"""Comparison of answers with the recorded ones; README.md lists the rules."""

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.conformance.wire import METHODS, Json, SignatureDefMap

__all__ = ["Difference", "Masks", "grpc_differences", "http_differences", "step_differences"]

_TOLERANCE = 1e-6  # relative
_LONGEST_QUOTE = 300


class Difference(NamedTuple):
    """One disagreement: its kind (status, headers, body, text or output) and what differs."""

    kind: str
    text: str


class Masks:
    """Replaces what may differ in a text, such as pointers and durations."""

    def __init__(self, file: Path) -> None:
        rules = json.loads(file.read_text())["masks"]
        self._rules = [(re.compile(rule["pattern"], re.M), rule["replace"]) for rule in rules]

    def __call__(self, text: str) -> str:
        for pattern, replacement in self._rules:
            text = pattern.sub(replacement, text)
        return text


def http_differences(
    expected: Json, got: Json, mask: Masks, *, compare: str | None = None, strict: bool = False
) -> list[Difference]:
    """Compare two answers over REST.

    Args:
        expected: The recorded answer.
        got: The answer to judge.
        mask: Applied to texts of both.
        compare: `metrics` or `any_error_text`, as the case says.
        strict: Whether bodies must be equal byte for byte.
    """
    if "error" in expected or "error" in got:
        if expected.get("error") == got.get("error"):
            return []
        statuses = [answer.get("error") or answer["status"] for answer in (expected, got)]
        return [Difference("status", "expected {}, got {}".format(*statuses))]
    differences = [
        Difference(kind, f"expected {expected[name]}, got {got[name]}")
        for kind, name in (("status", "status"), ("headers", "headers"))
        if expected[name] != got[name]
    ]
    if compare == "metrics":
        names = {name for name in expected["metrics"] if name.startswith(":tensorflow:serving:")}
        if missing := names - set(got["metrics"]):
            differences.append(Difference("body", f"metrics missing: {sorted(missing)}"))
        return differences
    difference = _body_difference(_body(expected), _body(got), mask, strict=strict)
    if difference and (difference.kind, compare) != ("text", "any_error_text"):
        differences.append(difference)
    return differences


def _body(answer: Json) -> bytes:
    if "body" in answer:
        body: str = answer["body"]
        return body.encode()
    return base64.b64decode(answer["body_b64"])


def _body_difference(
    expected: bytes, got: bytes, mask: Masks, *, strict: bool
) -> Difference | None:
    as_text = "expected {}, got {}".format(
        *(_short(body.decode("utf-8", "replace")) for body in (expected, got))
    )
    if strict:
        return None if expected == got else Difference("body", as_text)
    try:
        parsed: list[Any] = [json.loads(body) for body in (expected, got)]
    except ValueError:
        texts = [mask(body.decode("utf-8", "surrogateescape")) for body in (expected, got)]
        return None if texts[0] == texts[1] else Difference("body", as_text)
    text = _json_difference(parsed[0], parsed[1], mask)
    if text is None:
        return None
    errors = all(isinstance(value, dict) and set(value) == {"error"} for value in parsed)
    return Difference("text" if errors else "body", text)


def grpc_differences(method: str, expected: Json, got: Json, mask: Masks) -> list[Difference]:
    """Compare two answers over gRPC."""
    if "error" in got:
        return [Difference("status", f"expected {expected['code']}, got {got['error']}")]
    if expected["code"] != got["code"]:
        codes = [f"{answer['code']} {_short(answer['details'])}" for answer in (expected, got)]
        return [Difference("status", "expected {}, got {}".format(*codes))]
    differences = []
    details = [mask(answer["details"]) for answer in (expected, got)]
    if details[0] != details[1]:
        text = "expected {}, got {}".format(*map(_short, details))
        differences.append(Difference("text", text))
    if expected["code"] == "OK":
        data = [base64.b64decode(answer["b64"]) for answer in (expected, got)]
        if method in METHODS:
            response = METHODS[method][1]
            body = _message_difference(*map(response.FromString, data))
        else:
            body = None if data[0] == data[1] else "response bytes differ"
        if body:
            differences.append(Difference("body", body))
    return differences


def step_differences(step: Json, expected: Json, got: Json, mask: Masks) -> list[Difference]:
    """Compare the outcome of a step of a scenario with the recorded one."""
    match step["do"]:
        case "http":
            return http_differences(expected, got, mask, compare=step.get("compare"))
        case "grpc":
            return grpc_differences(step["method"], expected, got, mask)
        case "poll":
            return list(_poll_differences(expected, got, mask))
        case "load_stop" | "concurrent":
            return _load_differences(step["do"], expected, got, mask)
    differences = []
    for key, value in expected.items():
        other, kind = got.get(key), "status"
        if key == "output_tail":
            value, other, kind = list(map(mask, value)), list(map(mask, other or [])), "output"
        if value != other:
            differences.append(Difference(kind, f"{key}: expected {value!r}, got {other!r}"))
    return differences


def _poll_differences(expected: Json, got: Json, mask: Masks) -> Iterator[Difference]:
    if expected["reached"] != got["reached"]:
        text = f"expected reached={expected['reached']}, got {got['reached']}; seen {got['seen']}"
        yield Difference("status", text)
    states = [
        {
            version: {**status, "error_message": ""} if isinstance(status, dict) else status
            for version, status in outcome["final"].items()
        }
        for outcome in (expected, got)
    ]
    if difference := _json_difference(states[0], states[1], mask):
        yield Difference("status", difference)
    elif difference := _json_difference(expected["final"], got["final"], mask):
        yield Difference("text", difference)
    if got["ever_without_available"] and not expected["ever_without_available"]:
        yield Difference("status", f"at some moment no version was AVAILABLE: {got['seen']}")


def _load_differences(do: str, expected: Json, got: Json, mask: Masks) -> list[Difference]:
    if do == "load_stop" and not got["kinds"]:
        return [Difference("status", "no request was answered")]
    if extra := set(map(mask, got["kinds"])) - set(map(mask, expected["kinds"])):
        text = f"unexpected {sorted(extra)}, recorded {expected['kinds']}"
        return [Difference("status", text)]
    return []


def _json_difference(expected: Any, got: Any, mask: Masks, path: str = "$") -> str | None:
    """Return the first difference of two JSON values; strings are masked."""
    if _is_number(expected) and _is_number(got):
        return None if _equal(expected, got) else f"{path}: expected {expected!r}, got {got!r}"
    if isinstance(expected, str) and isinstance(got, str):
        expected, got = mask(expected), mask(got)
    if type(expected) is not type(got) or not isinstance(expected, dict | list):
        same = type(expected) is type(got) and expected == got
        return None if same else f"{path}: expected {_short(expected)}, got {_short(got)}"
    if isinstance(expected, dict):
        if set(expected) != set(got):
            return f"{path}: expected keys {sorted(expected)}, got {sorted(got)}"
        pairs = [(f"{path}.{key}", expected[key], got[key]) for key in expected]
    else:
        if len(expected) != len(got):
            return f"{path}: expected {len(expected)} items, got {len(got)}"
        pairs = _numbered(path, expected, got)
    differences = (_json_difference(first, second, mask, where) for where, first, second in pairs)
    return next(filter(None, differences), None)


def _numbered(path: str, expected: Any, got: Any) -> list[tuple[str, Any, Any]]:
    return [
        (f"{path}[{index}]", first, second)
        for index, (first, second) in enumerate(zip(expected, got, strict=True))
    ]


def _message_difference(expected: Any, got: Any, path: str = "") -> str | None:
    """Return the first difference of two messages of one type; `Any` is unpacked."""
    if expected.DESCRIPTOR.full_name == "google.protobuf.Any":
        return _any_difference(expected, got, path)
    values, others = (
        {field.name: (field, value) for field, value in message.ListFields()}
        for message in (expected, got)
    )
    for name in sorted(values.keys() | others.keys()):
        where = f"{path}.{name}" if path else name
        if name not in others:
            return f"{where}: expected {_short(str(values[name][1]))}, got nothing"
        if name not in values:
            return f"{where}: expected nothing, got {_short(str(others[name][1]))}"
        field, value = values[name]
        if difference := _field_difference(field, value, others[name][1], where):
            return difference
    return None


def _any_difference(expected: Any, got: Any, path: str) -> str | None:
    if expected.type_url != got.type_url:
        return f"{path}: expected {expected.type_url}, got {got.type_url}"
    maps = [SignatureDefMap() for _ in range(2)]
    if expected.Is(maps[0].DESCRIPTOR):
        expected.Unpack(maps[0])
        got.Unpack(maps[1])
        return _message_difference(maps[0], maps[1], f"{path}[signature_def]")
    return None if expected.value == got.value else f"{path}: Any values differ"


def _field_difference(field: Any, expected: Any, got: Any, path: str) -> str | None:
    pairs: list[tuple[str, Any, Any]] = [(path, expected, got)]
    if isinstance(expected, Mapping):
        if set(expected) != set(got):
            return f"{path}: expected keys {sorted(expected)}, got {sorted(got)}"
        field = field.message_type.fields_by_name["value"]
        pairs = [(f"{path}[{key}]", expected[key], got[key]) for key in expected]
    elif field.is_repeated:
        if len(expected) != len(got):
            return f"{path}: expected {len(expected)} items, got {len(got)}"
        pairs = _numbered(path, expected, got)
    for where, first, second in pairs:
        if field.message_type is not None:
            if difference := _message_difference(first, second, where):
                return difference
        elif _is_number(first):
            if not _equal(first, second):
                return f"{where}: expected {first!r}, got {second!r}"
        elif first != second:
            return f"{where}: expected {_short(repr(first))}, got {_short(repr(second))}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(expected: float, got: float) -> bool:
    if math.isnan(expected) or math.isnan(got):
        return math.isnan(expected) and math.isnan(got)
    if isinstance(expected, int) and isinstance(got, int):
        return expected == got
    return math.isclose(expected, got, rel_tol=_TOLERANCE)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]}...({len(text)})"
    return repr(text)
