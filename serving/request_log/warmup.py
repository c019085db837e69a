"""Warm-up records from recorded requests."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.clients.request_log.framing import frame
from shortlist.clients.request_log.records import LogRecord
from shortlist.clients.wire import messages
from shortlist.serving.repository.golden import GoldenQuery, encode
from shortlist.serving.request_log.sampling import DistinctSample
from shortlist.serving.request_log.selection import SelectedLog

__all__ = ["MOST_RECORDS", "as_golden", "varied_requests", "write_warmup_file"]

MOST_RECORDS = 1000  # TensorFlow Serving refuses a file with more


def varied_requests(
    log: SelectedLog, most: int, *, batchable_only: bool = False
) -> list[LogRecord]:
    """Return requests to every signature, with no user twice.

    Args:
        log: The log.
        most: Number of requests.
        batchable_only: Omit requests whose inputs do not share their first dimension.

    Raises:
        LogFileError: There are none.
    """
    samples: dict[str, DistinctSample[LogRecord]] = {}
    for record in log.predictions():
        try:
            inputs, users = record.input_tensors, record.user_ids
            encode(record.inputs)  # strings that are not text have no form in JSON
        except ValueError as exc:
            log.left_out[f"not readable ({exc})"] += 1
            continue
        sizes = {tensor.shape[:1] for tensor in inputs.values()}
        if batchable_only and (len(sizes) != 1 or () in sizes):
            log.left_out["inputs of different first dimensions, which no batch takes"] += 1
            continue
        named = sorted(user for user in users if user)
        identity = "\n".join(named).encode() or _request(record).SerializeToString()
        sample = samples.setdefault(record.signature, DistinctSample[LogRecord](most))
        sample.add(identity, record)
    chosen = _in_turn([sample.items() for _, sample in sorted(samples.items())], most)
    log.require(len(chosen), "requests for warm-up")
    return chosen


def _in_turn(groups: Sequence[Sequence[LogRecord]], most: int) -> list[LogRecord]:
    """Return items of all groups in turn, none with a user of another."""
    chosen: list[LogRecord] = []
    users: set[str] = set()
    waiting = [iter(group) for group in groups]
    while waiting and len(chosen) < most:
        for group in list(waiting):
            record = next((item for item in group if users.isdisjoint(_named(item))), None)
            if record is None:
                waiting.remove(group)
            elif len(chosen) < most:
                users.update(_named(record))
                chosen.append(record)
    return chosen


def _named(record: LogRecord) -> Iterable[str]:
    return filter(None, record.user_ids)


def _request(record: LogRecord) -> messages.PredictRequest:
    """Return the request, without the version or label that was asked."""
    request = record.message.predict_log.request
    spec = messages.ModelSpec(name=record.model, signature_name=record.signature)
    request.model_spec.CopyFrom(spec)
    return request


def write_warmup_file(path: Path, records: Iterable[LogRecord]) -> None:
    """Write a file for `assets.extra/`: TFRecord, not compressed, of requests without answers."""
    logs = [
        messages.PredictionLog(predict_log=messages.PredictLog(request=_request(record)))
        for record in records
    ]
    path.write_bytes(b"".join(frame(log.SerializeToString()) for log in logs))


def as_golden(records: Iterable[LogRecord]) -> list[GoldenQuery]:
    """Return requests as queries for a version in a process of its own; no answers are known."""
    queries = []
    for record in records:
        names: dict[str, Any] = {}
        if record.interface is not None:
            names = {"ids": record.interface.ids, "scores": record.interface.scores}
        queries.append(
            GoldenQuery(
                signature=record.signature or contract.SERVING_DEFAULT,
                inputs=record.inputs,
                outputs={},
                **names,
            )
        )
    return queries
