"""One record of a request log: a `PredictionLog`, as bytes and as a typed view."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from shortlist.clients import contract
from shortlist.clients._codecs.tensors import WireTensor
from shortlist.clients.interface import NoInterfaceError, RetrievalInterface, find_interface
from shortlist.clients.types import Retrieval, Signature, TensorSpec
from shortlist.clients.wire import messages
from shortlist.clients.wire.packed_pb2 import PackedPredictionLog

__all__ = ["CLIENT", "KINDS", "SERVER", "SHADOW", "LogRecord", "decode", "encode"]

# Programs that write records.
SERVER: Final = "shortlist-server"
CLIENT: Final = "shortlist-client"
SHADOW: Final = "shortlist-shadow"  # a client, for a copy of a request; see Split.shadow

# By kind of call: the field of PredictionLog. Each holds a request (1) and its response (2).
_FIELDS: Final = {"classify": 2, "regress": 3, "multi_inference": 4, "predict": 6}
KINDS: Final = tuple(sorted(_FIELDS))
_END_OF_TIME: Final = 253_402_300_800  # year 10000, which Python's dates do not reach


def encode(metadata: bytes, request: bytes, response: bytes, *, kind: str = "predict") -> bytes:
    """Return a serialised `PredictionLog`.

    Args:
        metadata: Serialised `LogMetadata`: servable, time and other facts.
        request: Serialised request.
        response: Serialised response.
        kind: `predict`, `classify`, `regress` or `multi_inference`.
    """
    entry = _field(1, request) + _field(2, response)
    return _field(1, metadata) + _field(_FIELDS[kind], entry)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of type message or bytes on the wire."""
    size, parts = len(content), bytearray((number << 3 | 2,))
    while size > 0x7F:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    parts.append(size)
    return bytes(parts) + content


def decode(data: bytes) -> "LogRecord":
    """Return the typed view of a serialised `PredictionLog`.

    Raises:
        google.protobuf.message.DecodeError: The bytes are not a message.
        ValueError: They are a message, but not one that records a request.
    """
    log = PackedPredictionLog.FromString(data)
    metadata = log.log_metadata
    kind = "predict"
    if log.HasField("predict_log"):
        asked, answered = log.predict_log.request.model_spec, log.predict_log.response.model_spec
    else:
        whole = messages.PredictionLog.FromString(data)
        field = whole.WhichOneof("log_type")
        if field is None:
            raise ValueError("it has no request")
        kind = field.removesuffix("_log")
        asked, answered = _specs(getattr(whole, field))
    spec = metadata.model_spec
    started = metadata.time_us / 1e6 or float(metadata.timestamp_secs)
    rate = metadata.sampling_config.sampling_rate
    return LogRecord(
        kind=kind,
        model=spec.name or asked.name or answered.name,
        version=_first(_version(spec), _version(answered), _version(asked)),
        label=metadata.version_label or spec.version_label or asked.version_label or None,
        signature=spec.signature_name or asked.signature_name or contract.SERVING_DEFAULT,
        time=started if 0 < started < _END_OF_TIME else 0.0,
        latency=metadata.latency_us / 1e6 if metadata.latency_us else None,
        transport=metadata.transport or None,
        sampling_rate=rate if 0 < rate <= 1 else 1.0,
        origin=metadata.request_origin or None,
        data=data,
        _log=log,
    )


def _specs(entry: Any) -> tuple[Any, Any]:
    """Return the specs of the request and the response of another log than predict's."""
    request, response = entry.request, entry.response
    if isinstance(entry, messages.PredictStreamedLog):
        request = next(iter(request), messages.PredictRequest())
        response = next(iter(response), messages.PredictResponse())
    elif isinstance(entry, messages.MultiInferenceLog):
        request = next(iter(request.tasks), messages.InferenceTask())
        response = next(iter(response.results), messages.InferenceResult())
    return request.model_spec, response.model_spec


def _version(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, kw_only=True)
class LogRecord:
    """A request, its answer, and how the answer came about.

    Attributes:
        kind: `predict`, or `classify`, `regress`, `multi_inference`, `session_run` or
            `predict_streamed`, whose tensors are in `message` alone.
        model: Model name.
        version: Version that answered; `None` if the record does not say.
        label: Version label of the request; `None` without one.
        signature: Signature name.
        time: Start of the request in epoch seconds; 0 if the record does not say.
        latency: Seconds from the request to its answer; `None` if the record does not say.
        transport: `REST` or `GRPC`; `None` if the record does not say.
        sampling_rate: Share of the requests that were logged; 1 if the record does not say.
        origin: Program that wrote the record; `None` if it does not say.
        data: The serialised `PredictionLog`.
    """

    kind: str
    model: str
    version: int | None
    label: str | None
    signature: str
    time: float
    latency: float | None
    transport: str | None
    sampling_rate: float
    origin: str | None
    data: bytes
    _log: PackedPredictionLog

    @property
    def shadow(self) -> bool:
        """Whether the request is a copy, whose answer no user has seen."""
        return self.origin == SHADOW

    @cached_property
    def message(self) -> messages.PredictionLog:
        """The whole record as a message."""
        return messages.PredictionLog.FromString(self.data)

    @cached_property
    def input_tensors(self) -> Mapping[str, WireTensor]:
        """Inputs by name, decoded on demand.

        Raises:
            ValueError: A tensor contradicts itself.
        """
        return _tensors(self._log.predict_log.request.inputs)

    @cached_property
    def output_tensors(self) -> Mapping[str, WireTensor]:
        """Outputs by name, decoded on demand.

        Raises:
            ValueError: A tensor contradicts itself.
        """
        return _tensors(self._log.predict_log.response.outputs)

    @cached_property
    def inputs(self) -> Mapping[str, Any]:
        """Inputs by name as scalars and nested lists; strings as `str`, else as `bytes`."""
        return {name: _value(tensor) for name, tensor in self.input_tensors.items()}

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """Outputs by name as scalars and nested lists; strings as `str`, else as `bytes`."""
        return {name: _value(tensor) for name, tensor in self.output_tensors.items()}

    @cached_property
    def interface(self) -> RetrievalInterface | None:
        """Tensors that make this a retrieval, of Shortlist's or another model; `None` if none do.

        A retrieval by embedding has no input with user ids, though `query` names one.
        """
        inputs, outputs = self.input_tensors, self.output_tensors
        if contract.CANDIDATE_IDS in outputs and contract.SCORES in outputs:
            similar = contract.CANDIDATE_ID in inputs and contract.USER_ID not in inputs
            return None if similar else RetrievalInterface(signature=self.signature)
        signature = Signature(inputs=_specs_of(inputs), outputs=_specs_of(outputs), method_name="")
        try:
            return find_interface({self.signature: signature}, signature=self.signature)
        except NoInterfaceError:
            return None

    @cached_property
    def user_ids(self) -> list[str]:
        """User ids of the rows; empty if the request has none.

        Raises:
            ValueError: There is none in a row, or one that is not text.
        """
        interface = self.interface
        name = contract.USER_ID if interface is None else interface.query
        if name not in self.input_tensors:
            return []
        rows = self.inputs[name]
        rows = rows if isinstance(rows, list) else [rows]
        if [] in rows:
            raise ValueError(f"input {name!r} has no user id in a row")
        ids = [row[0] if isinstance(row, list) else row for row in rows]
        if any(isinstance(user_id, bytes) for user_id in ids):
            raise ValueError(f"input {name!r} has a user id that is not UTF-8")
        return list(map(str, ids))

    @cached_property
    def retrievals(self) -> list[Retrieval]:
        """The answered lists, row by row, without padding; empty unless this is a retrieval.

        Raises:
            ValueError: The outputs do not fit together.
        """
        interface = self.interface
        if interface is None:
            return []
        names, scores = (self.output_tensors[name] for name in (interface.ids, interface.scores))
        if len(names.shape) != 2 or names.shape != scores.shape:
            raise ValueError(f"{names.shape} candidate ids have {scores.shape} scores")
        count, width = names.shape
        users = self.user_ids or [""] * count
        if len(users) != count:
            raise ValueError(f"{len(users)} user ids have {count} answers")
        known = self._row_values(contract.KNOWN_USER, count)
        events = self._row_values(contract.KNOWN_HISTORY, count)
        features = self._row_values(contract.KNOWN_FEATURES, count)
        rows = zip(names.texts(width), scores.numbers(width), strict=True)
        return [
            Retrieval(
                user_id=users[index],
                candidate_ids=ids[: (end := _end(numbers))],
                scores=numbers[:end],
                version=self.version,
                label=self.label,
                known_user=known[index],
                known_history=events[index],
                known_features=features[index],
            )
            for index, (ids, numbers) in enumerate(rows)
        ]

    def _row_values(self, name: str, count: int) -> list[Any]:
        values = self.outputs.get(name)
        return values if isinstance(values, list) and len(values) == count else [None] * count


def _tensors(protos: Any) -> dict[str, WireTensor]:
    return {name: WireTensor(protos[name]) for name in sorted(protos)}


def _specs_of(tensors: Mapping[str, WireTensor]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(dtype=tensor.dtype.name, shape=tensor.shape, tensor_name="")
        for name, tensor in tensors.items()
    }


def _value(tensor: WireTensor) -> Any:
    value = tensor.value()
    return _decoded(value) if tensor.dtype.kind == "s" else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _end(scores: tuple[float, ...]) -> int:
    """Return the number of candidates before the padding, which foreign indexes score NaN."""
    end = len(scores)
    while end and not scores[end - 1] > contract.PADDING_SCORE:
        end -= 1
    return end
