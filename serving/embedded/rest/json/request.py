"""From a JSON request to the tensors of a signature.

Two ways lead there. Well-formed requests go through orjson and a few passes in C over
whole levels of nesting. Whatever does not fit on the way is parsed again and walked value
by value, by the rules and with the error texts of `tensorflow_serving/util/json_tensor.cc`.
Both ways give the same tensors.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES
from shortlist.serving.embedded.api.errors import invalid
from shortlist.serving.embedded.rest.json.exact import (
    INT_RANGES,
    MAX_RANK,
    NUMBERS,
    column_tensors,
    floats,
    integers,
    parse_object,
    row_tensors,
    shown,
    signature_name_of,
)
from shortlist.serving.embedded.rest.json.parser import JsonObject

__all__ = ["PredictBody"]


class _UnusualError(Exception):
    """The quick way does not apply; says nothing about whether the request is right."""


class PredictBody:
    """A parsed predict request.

    Attributes:
        signature_name: As the request has it, or empty.
        rows: Whether it has the row form (`instances`); known after `tensors`.
    """

    def __init__(self, body: bytes) -> None:
        """Parses the body.

        Raises:
            StatusError: It is no JSON object, or the signature name is no string.
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
        """Inputs of the signature by name.

        Raises:
            StatusError: The request does not fit the signature.
        """
        inputs = {alias: info.dtype for alias, info in definition.inputs.items()}
        if self._quick is not None:
            try:
                return self._quick_tensors(self._quick, inputs)
            except _UnusualError:
                self._document = parse_object(self._body)
        return self._exact_tensors(self._document, dict(sorted(inputs.items())))

    def _quick_tensors(
        self, document: dict[str, Any], inputs: Mapping[str, int]
    ) -> dict[str, npt.NDArray[Any]]:
        instances, columns = document.get("instances"), document.get("inputs")
        both = "instances" in document and "inputs" in document
        if both or (instances is None and columns is None):  # a key may be there and null
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
    """The body by orjson, or None where RapidJSON might see something else in it."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if (
        type(document) is not dict
        or type(document.get("signature_name", "")) is not str
        # Of equal keys orjson keeps the last and RapidJSON finds the first.
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
    """A tensor from nested lists of one shape whose leaves have the right type."""
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
    return _leaves(leaves, dtype.name, dtype.numpy).reshape(shape)


def _leaves(leaves: list[Any], name: str, numpy_type: npt.DTypeLike) -> npt.NDArray[Any]:
    types = set(map(type, leaves))
    if name == "string":
        if types - {str}:
            raise _UnusualError
        array = np.empty(len(leaves), object)
        array[:] = [leaf.encode() for leaf in leaves]
        return array
    if name in ("float", "double"):
        if types - NUMBERS:
            raise _UnusualError
        return floats(leaves, numpy_type)
    if name == "bool":
        if types - {bool}:
            raise _UnusualError
        return np.array(leaves, bool)
    if name not in INT_RANGES or types - {int}:
        raise _UnusualError
    low, high = INT_RANGES[name]
    if leaves and (min(leaves) < low or max(leaves) >= high):
        raise _UnusualError
    return integers(leaves, name, numpy_type)
