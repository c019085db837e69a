"""TensorFlow's own reader and TensorFlow Serving's messages read our files, and we read theirs."""

from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.request_log.files import LogFile
from shortlist.clients.request_log.reading import log_files, read_log, read_records
from shortlist.clients.request_log.records import encode
from shortlist.clients.wire import messages
from tests.unit.clients.request_log import examples

pytestmark = pytest.mark.slow


def record(**values: Any) -> bytes:
    return encode(
        examples.metadata(**values).SerializeToString(),
        examples.request().SerializeToString(),
        examples.response().SerializeToString(),
    )


def test_tensorflow_reads_our_files(tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = LogFile(tmp_path / "m")
    file.write([record(version_label="canary"), bytes(1_000_000)])
    file.write([b""])
    file.close()
    (path,) = log_files(tmp_path)
    dataset = tf.data.TFRecordDataset(str(path), compression_type="GZIP")
    theirs = [item.numpy() for item in dataset]
    assert theirs == list(read_records(path))
    log = prediction_log_pb2.PredictionLog.FromString(theirs[0])
    assert log.log_metadata.model_spec.version.value == 3
    assert log.log_metadata.timestamp_secs == 1_700_000_000
    assert tf.make_ndarray(log.predict_log.request.inputs["user_id"]).tolist() == [b"u1", b"u2"]
    assert tf.make_ndarray(log.predict_log.response.outputs["scores"]).shape == (2, 2)
    # Fields of ours survive a program that knows nothing of them.
    again = messages.PredictionLog.FromString(log.SerializeToString())
    assert again.log_metadata.version_label == "canary"
    assert again.log_metadata.latency_us == 1500


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_we_read_tensorflows_files(tmp_path: Path, compression: str) -> None:
    import tensorflow as tf

    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        writer.write(record())
        writer.write(record(transport="REST"))
    assert [seen.transport for seen in read_log(path)] == ["GRPC", "REST"]
