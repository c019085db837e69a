"""Warm-up records: requests that a server runs while it loads a version."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.clients import contract
from shortlist.clients.wire.messages import (
    ModelSpec,
    PredictionLog,
    PredictLog,
    PredictRequest,
    TensorProto,
)
from shortlist.export._tf import tf

__all__ = ["write_warmup_records"]


def write_warmup_records(
    path: Path,
    name: str,
    requests: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    batchable_only: bool = False,
) -> None:
    """Write the warm-up records of a version.

    ScaNN builds its searcher at the first query, which takes seconds with a million
    candidates, and TensorFlow traces each signature once. With these records both happen
    before the version becomes AVAILABLE. A record that fails makes the load fail.

    Args:
        path: Folder of the version.
        name: Name of the servable.
        requests: Requests by signature name, each with inputs by tensor name.
        batchable_only: Omit requests whose inputs do not share their first dimension.
            TensorFlow Serving also batches warm-up requests, so with `--enable_batching`
            such a record keeps the version from loading.
    """
    file = path / contract.WARMUP_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs_of_requests in requests.items():
            for inputs in inputs_of_requests:
                if batchable_only and not _is_batchable(inputs):
                    continue
                writer.write(_record(name, signature, inputs).SerializeToString())


def _record(name: str, signature: str, inputs: Mapping[str, Any]) -> PredictionLog:
    tensors = {
        key: TensorProto.FromString(
            tf.make_tensor_proto(value, dtype=_dtype(value)).SerializeToString()
        )
        for key, value in inputs.items()
    }
    request = PredictRequest(
        model_spec=ModelSpec(name=name, signature_name=signature), inputs=tensors
    )
    return PredictionLog(predict_log=PredictLog(request=request))


def _is_batchable(inputs: Mapping[str, Any]) -> bool:
    first_dimensions = {np.shape(value)[:1] for value in inputs.values()}
    return len(first_dimensions) == 1 and () not in first_dimensions


def _dtype(value: Any) -> tf.DType | None:
    """Return the type of strings: an empty object array does not show what it holds."""
    return tf.string if np.asarray(value).dtype == object else None
