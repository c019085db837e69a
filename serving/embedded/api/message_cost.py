"""The memory that a serialised message needs once it is parsed, without parsing it.

Two bytes can become an object of 180: 64 MiB of empty map entries would need 6 GiB.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

from shortlist.serving.embedded.api.limits import RequestLimits
from shortlist.serving.embedded.api.tensors import decode_varint

__all__ = ["message_cost"]

# Measured with upb for every kind of field that a request has, rounded up: at worst, an entry
# of the inputs of PredictRequest takes 176 bytes, a string 33, an int64 of one byte 16.
_WORST_PER_BYTE: Final = 90
_OBJECT: Final = 256
_STRING: Final = 40
_NUMBER: Final = 16
_COPIES: Final = 4  # the message, its fields, its arrays and the runtime's copy
# Smaller messages are not worth a look.
_SMALL: Final = 32 * 1024

_VARINTS: Final = frozenset(
    getattr(FieldDescriptor, f"TYPE_{name}")
    for name in ("INT32", "INT64", "UINT32", "UINT64", "SINT32", "SINT64", "ENUM")
)
_LENGTH_DELIMITED: Final = 2


class _Field(NamedTuple):
    """Memory of a length-delimited field: once and per byte; the fields of its message."""

    fixed: int
    per_byte: int
    plan: "dict[int, _Field] | None"


_Plan = dict[int, _Field]  # by number


def message_cost(data: bytes, descriptor: Any, limits: RequestLimits) -> int:
    """Return an upper bound of the memory in bytes for parsing and using a message.

    Args:
        data: The serialised message.
        descriptor: Descriptor of its type.
        limits: Limits of the request.

    Raises:
        StatusError: RESOURCE_EXHAUSTED; it has more fields than a request may have values.
    """
    if len(data) <= _SMALL:
        return _WORST_PER_BYTE * len(data)
    cost = _COPIES * len(data)
    fields = 0
    for fields, more in enumerate(_fields(data, _plan(descriptor)), 1):
        cost += more
        if not fields & 0xFFFF:
            limits.check_values(fields)
    limits.check_values(fields)
    return cost


def _fields(data: bytes, plan: _Plan) -> Iterator[int]:
    """Yield the cost of each field, also of those in messages, up to the first unreadable one."""
    position, end = 0, len(data)
    outer: list[tuple[int, _Plan]] = []  # end and plan of the messages around it
    while True:
        while position >= end:
            if not outer:
                return
            end, plan = outer.pop()
        tag = data[position]
        position += 1
        if tag >= 0x80:
            number, position = decode_varint(data, position - 1)
            if number is None:
                return
            tag = number
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            if position == len(data):
                return
            size = data[position]
            position += 1
            if size >= 0x80:
                number, position = decode_varint(data, position - 1)
                if number is None:
                    return
                size = number
            field = plan.get(tag >> 3)
            if field is None:
                yield 0
            else:
                yield field.fixed + field.per_byte * size
                if field.plan is not None:
                    outer.append((end, plan))
                    end, plan = min(position + size, end), field.plan
                    continue
            position += size
        else:
            yield _NUMBER
            if kind == 0:
                number, position = decode_varint(data, position)
                if number is None:
                    return
            else:  # fixed64, fixed32, or what the parser refuses
                position += {1: 8, 5: 4}.get(kind, 0)


@cache
def _plan(descriptor: Any) -> _Plan:
    plan: _Plan = {}
    return _fill(plan, descriptor, {descriptor.full_name: plan})


def _fill(plan: _Plan, descriptor: Any, known: dict[str, _Plan]) -> _Plan:
    """Add the fields of a message, which may contain itself."""
    for field in descriptor.fields:
        message: Any = field.message_type
        if message is not None:
            inner = known.get(message.full_name)
            if inner is None:
                known[message.full_name] = inner = {}
                _fill(inner, message, known)
            plan[field.number] = _Field(_OBJECT, 0, inner)
        else:
            packed = _NUMBER if field.type in _VARINTS else 0
            plan[field.number] = _Field(_STRING, packed, None)
    return plan
