"""From a JSON request to the tensors of a signature.

Well-formed requests take the quick way: orjson, and a few passes in C over whole levels of
nesting. Any other request takes the exact way: it is parsed again and converted value by
value, by the rules and with the error messages of `tensorflow_serving/util/json_tensor.cc`.
Both ways return the same tensors.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import numpy.typing as npt
import orjson

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES
from shortlist.serving.embedded.api.errors import invalid
from shortlist.serving.embedded.api.limits import RequestLimits, RequestMemory
from shortlist.serving.embedded.api.tensors import MAX_RANK
from shortlist.serving.embedded.rest.json.exact import (
    INT_RANGES,
    NUMBERS,
    column_tensors,
    flat_array,
    parse_object,
    row_tensors,
    shown,
    signature_name_of,
)
from shortlist.serving.embedded.rest.json.parser import JsonObject

__all__ = ["PredictBody", "admit_values"]

_FEW_BYTES: Final = 4096
_VALUE_BYTES: Final = 96  # of an object's member or a list's element, parsed


def admit_values(body: bytes, limits: RequestLimits, memory: RequestMemory) -> None:
    """Bound the values of a JSON text, and take memory for them, before it is parsed.

    Counts commas and opening brackets, those within strings included.

    Raises:
        StatusError: RESOURCE_EXHAUSTED; these are too many values.
    """
    if len(body) > _FEW_BYTES:
        values = 1 + body.count(b",") + body.count(b"[") + body.count(b"{")
        limits.check_values(values)
        memory.need(values * _VALUE_BYTES)


class _UnusualError(Exception):
    """The quick way does not apply; the request may still be valid."""


class PredictBody:
    """A parsed predict request.

    Attributes:
        signature_name: Signature name in the request, or empty.
        rows: True for the row form (`instances`); set by `tensors`.
    """

    def __init__(self, body: bytes) -> None:
        """Parse the body.

        Raises:
            StatusError: The body is not a JSON object, or the signature name is not a string.
        """
        self._body = body
        self.rows = False
        self._quick: dict[str, Any] | None = _quick_object(body)
        if self._quick is not None:
            self.signature_name: str = self._quick.get("signature_name", "")
        else:
            self._document = parse_object(body)
            self.signature_name = signature_name_of(self._document)

    def tensors(self, definition: messages.SignatureDef) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs of the signature by name.

        Raises:
            StatusError: The request does not fit the signature.
        """
        inputs = {alias: info.dtype for alias, info in definition.inputs.items()}
        if self._quick is not None:
            try:
                return self._quick_tensors(self._quick, inputs)
            except _UnusualError:
                self._quick = None  # its memory is for the other form
                self._document = parse_object(self._body)
        return self._exact_tensors(self._document, dict(sorted(inputs.items())))

    def _quick_tensors(
        self, document: dict[str, Any], inputs: Mapping[str, int]
    ) -> dict[str, npt.NDArray[Any]]:
        instances, columns = document.get("instances"), document.get("inputs")
        both = "instances" in document and "inputs" in document
        if both or (instances is None and columns is None):  # a key can be present and null
            raise _UnusualError
        if instances is None:
            if type(columns) is dict:
                if "b64" in columns:
                    raise _UnusualError
                return {alias: _dense(columns.get(alias), inputs[alias]) for alias in inputs}
            if len(inputs) != 1:
                raise _UnusualError
            return {alias: _dense(columns, number) for alias, number in inputs.items()}
        self.rows = True
        if type(instances) is not list or not instances:
            raise _UnusualError
        if type(instances[0]) is dict:
            return _quick_rows(instances, inputs)
        if len(inputs) != 1:
            raise _UnusualError
        return {alias: _dense(instances, number) for alias, number in inputs.items()}

    def _exact_tensors(
        self, document: JsonObject, inputs: Mapping[str, int]
    ) -> dict[str, npt.NDArray[Any]]:
        if not inputs:
            raise invalid(
                f"Failed to get input map for signature: {self.signature_name or 'DEFAULT'}"
            )
        has_rows, has_columns = document.has(b"instances"), document.has(b"inputs")
        if has_rows and has_columns:
            raise shown(
                document,
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
                "to exist ",
            )
        self.rows = has_rows
        if has_rows:
            instances = document.first(b"instances")
            if not isinstance(instances, list) or isinstance(instances, JsonObject):
                raise shown(document, "Expecting 'instances' to be an list/array")
            if not instances:
                raise shown(document, "No values in 'instances' array")
            return row_tensors(instances, inputs)
        if has_columns:
            return column_tensors(document.first(b"inputs"), inputs)
        raise invalid("Missing 'inputs' or 'instances' key")


# --- the quick way ------------------------------------------------------------------------


def _quick_object(body: bytes) -> dict[str, Any] | None:
    """Parse the body with orjson; None if RapidJSON might read it differently."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if (
        type(document) is not dict
        or type(document.get("signature_name", "")) is not str
        # Of equal keys, orjson keeps the last and RapidJSON the first.
        or body.count(b'"instances"') > 1
        or body.count(b'"inputs"') > 1
        or body.count(b'"signature_name"') > 1
        or b"\\u0000" in body
    ):
        return None
    return document


def _quick_rows(instances: list[Any], inputs: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    names = inputs.keys()
    if (
        "b64" in names
        or set(map(type, instances)) != {dict}
        or any(row.keys() != names for row in instances)
    ):
        raise _UnusualError
    return {
        alias: _dense([row[alias] for row in instances], number) for alias, number in inputs.items()
    }


def _dense(value: Any, number: int) -> npt.NDArray[Any]:
    """Return a tensor from nested lists of one shape whose leaves have the right type."""
    dtype = DTYPES.get(number)
    if dtype is None:
        raise _UnusualError
    shape: list[int] = []
    leaves = [value]
    while type(leaves[0]) is list:
        widths = set(map(len, leaves)) if set(map(type, leaves)) == {list} else set()
        if len(widths) != 1 or len(shape) >= MAX_RANK:
            raise _UnusualError
        shape.append(widths.pop())
        leaves = list(chain.from_iterable(leaves))
        if not leaves:
            break
    return flat_array(_checked(leaves, dtype.name), dtype).reshape(shape)


def _checked(leaves: list[Any], name: str) -> list[Any]:
    """Return the leaves with strings encoded if all fit the type."""
    types = set(map(type, leaves))
    if name == "string":
        fits = not types - {str}
    elif name in ("float", "double"):
        fits = not types - NUMBERS
    elif name == "bool":
        fits = not types - {bool}
    else:
        low, high = INT_RANGES.get(name, (0, 0))
        fits = name in INT_RANGES and not types - {int}
        fits = fits and (not leaves or (min(leaves) >= low and max(leaves) < high))
    if not fits:
        raise _UnusualError
    return [leaf.encode() for leaf in leaves] if name == "string" else leaves
