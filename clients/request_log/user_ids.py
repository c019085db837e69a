"""What a request log keeps of user ids: all, a keyed hash, or nothing."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shortlist.clients import contract
from shortlist.clients._arguments import shown
from shortlist.clients._codecs.tensors import from_tensor_proto
from shortlist.clients._codecs.values import flatten
from shortlist.clients.request_log.records import decode
from shortlist.clients.wire import messages

__all__ = ["MODES", "UserIds", "hash_user_id", "read_key"]

MODES: Final = ("keep", "hash", "drop")
_HASH_BYTES: Final = 16
_KEY_BYTES: Final = range(16, 65)  # more than BLAKE2b takes is refused


def hash_user_id(user_id: str | bytes, key: bytes) -> str:
    """Return what stands for a user id in logs with `ids="hash"`, to join them with other data.

    Args:
        user_id: User id; the empty one, which means no user, stays empty.
        key: The log's key, 16 to 64 bytes.
    """
    data = user_id.encode() if isinstance(user_id, str) else user_id
    return hashlib.blake2b(data, digest_size=_HASH_BYTES, key=key).hexdigest() if data else ""


def read_key(path: Path) -> bytes:
    """Return the key in a file, without the line break at its end.

    Raises:
        ValueError: The file cannot be read, or holds no such key.
    """
    try:
        key = path.read_bytes().removesuffix(b"\n")
    except OSError as exc:
        raise ValueError(f"cannot read the key file {path}: {exc.strerror}") from exc
    UserIds(ids="hash", key=key)  # checks its length
    return key


@dataclass(frozen=True, kw_only=True)
class UserIds:
    """What becomes of the user ids in a record.

    Attributes:
        ids: `keep`, `hash` (see `hash_user_id`) or `drop`.
        key: Key of the hash, 16 to 64 bytes.
        inputs: Inputs and features of examples that hold user ids. The query of a foreign
            retrieval model is one of them without being named.
    """

    ids: str = "keep"
    key: bytes | None = field(default=None, repr=False)
    inputs: tuple[str, ...] = (contract.USER_ID,)

    def __post_init__(self) -> None:
        if self.ids not in MODES:
            raise ValueError(f"ids must be one of {', '.join(MODES)}, got {shown(self.ids)}")
        if (self.ids == "hash") != (self.key is not None):
            raise ValueError("ids='hash' needs a key, and the others take none")
        if self.key is not None and not isinstance(self.key, bytes):
            raise ValueError(f"key takes bytes, got a value of type {type(self.key).__name__}")
        if self.key is not None and len(self.key) not in _KEY_BYTES:
            raise ValueError(
                f"key must be 16 to 64 random bytes, got {len(self.key)}; secrets.token_bytes(32) "
                "makes one"
            )

    def applied(self, data: bytes, *, more: Iterable[str] = ()) -> bytes:
        """Return a serialised record with its user ids kept, hashed or dropped.

        Args:
            data: Serialised `PredictionLog`.
            more: Further inputs that hold user ids.
        """
        if self.ids == "keep":
            return data
        record = decode(data)
        message = record.message
        if record.kind == "predict":
            names = {*self.inputs, *more}
            if record.interface is not None:
                names.add(record.interface.query)
            inputs = message.predict_log.request.inputs
            for name in names & {*inputs}:
                inputs[name].CopyFrom(self._tensor(inputs[name]))
        else:
            request = getattr(message, f"{record.kind}_log").request
            for features in _features(request.input):
                for name in {*self.inputs} & {*features}:
                    self._replace(features[name])
        return message.SerializeToString()

    def _value(self, user_id: Any) -> bytes:
        if self.key is None:
            return b""
        data = user_id if isinstance(user_id, bytes) else str(user_id).encode()
        return hash_user_id(data, self.key).encode()

    def _tensor(self, tensor: messages.TensorProto) -> messages.TensorProto:
        _, values = flatten(from_tensor_proto(tensor))
        return messages.TensorProto(
            dtype=messages.DataType.DT_STRING,
            tensor_shape=tensor.tensor_shape,
            string_val=map(self._value, values),
        )

    def _replace(self, feature: messages.Feature) -> None:
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        feature.bytes_list.value[:] = map(self._value, values)


def _features(source: messages.Input) -> Iterable[Any]:
    """Yield the features by name of each example, and of their common context."""
    with_context = source.example_list_with_context
    for example in (*source.example_list.examples, *with_context.examples, with_context.context):
        yield example.features.feature
