"""The hook that logs requests and their answers, for servers that keep no request log."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from shortlist.clients import contract
from shortlist.clients._arguments import number, texts
from shortlist.clients._codecs.protobuf import message_of
from shortlist.clients._codecs.requests import (
    ClassifyRequest,
    Outputs,
    PredictRequest,
    RegressRequest,
)
from shortlist.clients._codecs.tensors import Tensor, WireTensor
from shortlist.clients._codecs.values import to_tensor_proto
from shortlist.clients.hooks import CallEvent
from shortlist.clients.request_log.files import GIB, MIB, LogFile
from shortlist.clients.request_log.records import CLIENT, SHADOW, encode
from shortlist.clients.request_log.user_ids import UserIds
from shortlist.clients.request_log.writer import LogCounts, LogWriter, QueueRoom
from shortlist.clients.wire import messages

__all__ = ["RequestLog"]

# Types of the contract's outputs: REST does not tell them, and writes 3.0 as 3 at times.
_TYPES: Final = {
    contract.SCORES: "DT_FLOAT",
    contract.RATING: "DT_FLOAT",
    contract.QUERY_EMBEDDING: "DT_FLOAT",
    contract.SERVABLE_VERSION: "DT_INT64",
}

Logged = PredictRequest | ClassifyRequest | RegressRequest


class RequestLog:
    """Hook that logs answered requests in files of TensorFlow Serving's `PredictionLog`.

    `hooks=[RequestLog("logs/web")]` writes `logs/web-20261128T101500-HOST-PID-1.tfrecord.gz` and
    so on, with all answered calls that run a signature. Calls do not wait for the disk: a thread
    writes, and what it cannot write in time is dropped and counted. May be shared by clients and
    threads; a forked process writes files of its own. Needs the extra `shortlist[log]`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        sample: float = 1.0,
        ids: str = "keep",
        key: bytes | None = None,
        user_inputs: Sequence[str] = (contract.USER_ID,),
        max_file_bytes: int = 64 * MIB,
        max_bytes: int | None = 10 * GIB,
        queue_bytes: int = 64 * MIB,
    ) -> None:
        """Check the options; the first file is made with the first record.

        Args:
            path: Folder and first part of the files' names.
            sample: Share of the requests to log, chosen at random.
            ids: What becomes of user ids: `keep`; `hash`, a keyed hash that is the same in all
                logs with this key; or `drop`. Histories and features stay.
            key: Key of the hash, 16 to 64 random bytes.
            user_inputs: Inputs of `predict`, and features of examples, that hold user ids. The
                other methods know theirs.
            max_file_bytes: Compressed size at which the next file begins.
            max_bytes: Size of all files of this path to keep, the oldest go first; `None` for no
                limit.
            queue_bytes: Most bytes of records that wait to be written.

        Raises:
            ValueError: An option is wrong.
            ShortlistError: The extra is not installed.
        """
        self._sample = number("sample", sample)
        if not 0 < self._sample <= 1:
            raise ValueError(f"sample must be above 0 and at most 1, got {sample!r}")
        self._ids = UserIds(ids=ids, key=key, inputs=tuple(texts("user_inputs", user_inputs)))
        file = LogFile(path, max_file_bytes=max_file_bytes, max_bytes=max_bytes)
        self._writer = LogWriter(file, room=QueueRoom(queue_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __call__(self, event: CallEvent) -> None:
        """Do nothing: requests that failed are not logged."""

    @property
    def counts(self) -> LogCounts:
        """Numbers of records written, dropped and lost, and bytes written."""
        return self._writer.counts

    def close(self) -> None:
        """Write what is queued and finish the file; also done at the end of the program."""
        self._writer.close()

    def exchange(self, event: CallEvent, request: Any, reply: Any) -> None:
        """Queue a request and its answer."""
        if not isinstance(request, Logged) or random.random() >= self._sample:
            return
        if not self._writer.has_room():
            return
        asked: bytes = message_of(request).SerializeToString()
        response, version = _response(request, reply)
        metadata = _metadata(event, request, version, self._sample)
        kind = type(request).__name__.removesuffix("Request").lower()
        data = encode(metadata, asked, response.SerializeToString(), kind=kind)
        if self._ids.ids == "keep":
            self._writer.offer(data, len(data))
        else:
            more = (request.user_input,) if isinstance(request, PredictRequest) else ()
            self._writer.offer(partial(self._ids.applied, data, more=more), len(data))


def _metadata(event: CallEvent, request: Logged, version: int | None, rate: float) -> bytes:
    metadata = messages.LogMetadata(
        model_spec=messages.ModelSpec(
            name=event.model or "", signature_name=request.signature or contract.SERVING_DEFAULT
        ),
        sampling_config=messages.SamplingConfig(sampling_rate=rate),
        timestamp_secs=int(event.started),
        request_origin=SHADOW if event.shadow else CLIENT,
        version_label=event.label or "",
        time_us=int(event.started * 1e6),
        latency_us=max(int(event.seconds * 1e6), 1),
        transport=event.transport.upper(),
    )
    answered = event.version if version is None else version
    if answered is not None:
        metadata.model_spec.version.value = answered
    return metadata.SerializeToString()


def _response(request: Logged, reply: Any) -> tuple[Any, int | None]:
    """Return the response as a message, and the version that answered if it says so."""
    if isinstance(reply, Outputs):
        return _predict_response(reply.tensors), reply.version or _version(reply.tensors)
    if isinstance(request, ClassifyRequest):
        classified = messages.ClassificationResponse()
        for row in reply:
            classes = classified.result.classifications.add().classes
            for label, score in zip(row.labels, row.scores, strict=True):
                classes.add(label=label, score=score)
        return classified, None
    regressed = messages.RegressionResponse()
    for value in reply:
        regressed.result.regressions.add(value=value)
    return regressed, None


def _predict_response(tensors: Mapping[str, Tensor]) -> messages.PredictResponse:
    response = messages.PredictResponse()
    for name, tensor in tensors.items():
        if isinstance(tensor, WireTensor):
            response.outputs[name].MergeFromString(tensor.serialized())
        else:
            response.outputs[name].CopyFrom(to_tensor_proto(tensor.value(), _TYPES.get(name)))
    return response


def _version(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the version in the outputs of Shortlist's servables."""
    if contract.SERVABLE_VERSION not in tensors:
        return None
    values = tensors[contract.SERVABLE_VERSION].value()
    return int(values[0]) if isinstance(values, list) and values else None
