"""The typed view of a record."""

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from shortlist.clients.request_log.records import KINDS, LogRecord, decode, encode
from shortlist.clients.types import Retrieval
from shortlist.clients.wire import messages
from tests.unit.clients.request_log.examples import metadata, request, response


def record(
    asked: Any = None, answered: Any = None, *, kind: str = "predict", **values: Any
) -> LogRecord:
    asked, answered = asked or request(), answered or response()
    data = (asked.SerializeToString(), answered.SerializeToString())
    return decode(encode(metadata(**values).SerializeToString(), *data, kind=kind))


def test_the_bytes_are_those_of_the_message() -> None:
    log = messages.PredictionLog(log_metadata=metadata())
    log.predict_log.request.CopyFrom(request(x=["a" * 1000]))  # lengths of two bytes
    log.predict_log.response.CopyFrom(response())
    encoded = encode(
        log.log_metadata.SerializeToString(),
        log.predict_log.request.SerializeToString(),
        log.predict_log.response.SerializeToString(),
    )
    assert messages.PredictionLog.FromString(encoded) == log
    assert decode(encoded).message == log


def test_a_record_says_how_its_answer_came_about() -> None:
    seen = record(version_label="canary", request_origin="shortlist-server")
    assert (seen.model, seen.version, seen.label) == ("retrieval", 3, "canary")
    assert (seen.signature, seen.transport, seen.origin) == (
        *("serving_default", "GRPC", "shortlist-server"),
    )
    assert (seen.time, seen.latency) == (1_700_000_000.25, 0.0015)
    assert seen.sampling_rate == 0.5
    assert seen.inputs == {"user_id": ["u1", "u2"]}
    assert seen.outputs["candidate_ids"] == [["a", "b"], ["c", ""]]
    assert seen.output_tensors["scores"].array().dtype == np.float32


def test_a_retrieval_has_users_and_lists_without_padding() -> None:
    seen = record()
    assert seen.user_ids == ["u1", "u2"]
    assert seen.retrievals == [
        Retrieval(
            user_id="u1", candidate_ids=("a", "b"), scores=(2.0, 1.0), known_user=True, version=3
        ),
        Retrieval(user_id="u2", candidate_ids=("c",), scores=(0.5,), known_user=False, version=3),
    ]


def test_a_foreign_model_is_recognised_by_its_tensors() -> None:
    outputs = {"output_1": np.array([[1.5, np.nan]], np.float32), "output_2": [["a", ""]]}
    seen = record(request(input_1=["u1"]), response(**outputs))
    assert seen.user_ids == ["u1"]
    assert [list(row) for row in seen.retrievals] == [[("a", 1.5)]]
    numbers = record(request(query=np.array([[7]])), response(ids=[[11, 12]], scores=[[1.0, 0.5]]))
    assert numbers.user_ids == ["7"]
    assert [row.candidate_ids for row in numbers.retrievals] == [("11", "12")]


def test_what_is_not_a_retrieval_has_no_lists() -> None:
    lists = {"candidate_ids": [["a"]], "scores": [[1.0]]}
    similar = record(request(candidate_id=["c"]), response(**lists))
    assert (similar.retrievals, similar.user_ids, similar.interface) == ([], [], None)
    rate = record(request(user_id=["u"], candidate_id=["c"]), response(rating=[3.5]))
    assert (rate.retrievals, rate.user_ids) == ([], ["u"])
    by_embedding = record(request(query_embedding=[[0.5]]), response(**lists))
    assert by_embedding.user_ids == []
    assert [(row.user_id, row.candidate_ids) for row in by_embedding.retrievals] == [("", ("a",))]


def test_tensors_that_do_not_fit_together_are_an_error() -> None:
    lists = {"candidate_ids": [["a"]], "scores": [[1.0, 2.0]]}
    with pytest.raises(ValueError, match="candidate ids have"):
        _ = record(request(user_id=["u"]), response(**lists)).retrievals
    with pytest.raises(ValueError, match="3 user ids have 2 answers"):
        _ = record(request(user_id=["a", "b", "c"])).retrievals


def test_strings_that_are_not_text_stay_bytes() -> None:
    assert record(request(user_id=[b"\xff", "é"])).inputs == {"user_id": [b"\xff", "é"]}


def test_records_of_other_writers_are_read() -> None:
    """Warm-up records have no metadata; other collectors have no fields of ours."""
    warmup = messages.PredictionLog()
    warmup.predict_log.request.CopyFrom(request())
    seen = decode(warmup.SerializeToString())
    assert (seen.model, seen.version, seen.label, seen.latency) == ("retrieval", None, None, None)
    assert (seen.time, seen.sampling_rate, seen.retrievals) == (0.0, 1.0, [])
    asked = messages.PredictRequest(model_spec=messages.ModelSpec(version_label="stable"))
    plain = messages.LogMetadata(timestamp_secs=12)
    other = decode(
        encode(plain.SerializeToString(), asked.SerializeToString(), response().SerializeToString())
    )
    assert (other.time, other.version, other.label) == (12.0, 3, "stable")


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_calls_keep_their_message(kind: str) -> None:
    requests: dict[str, Any] = {
        "classify": messages.ClassificationRequest(),
        "regress": messages.RegressionRequest(),
        "multi_inference": messages.MultiInferenceRequest(),
        "predict": request(),
    }
    seen = record(requests[kind], messages.RegressionResponse(), kind=kind)
    assert seen.kind == kind
    assert seen.message.HasField(f"{kind}_log")
    assert (seen.model, seen.version) == ("retrieval", 3)


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(b"nonsense")
    with pytest.raises(ValueError, match="no request"):
        decode(messages.PredictionLog(log_metadata=metadata()).SerializeToString())
    session = messages.PredictionLog(session_run_log=messages.SessionRunLog())
    assert decode(session.SerializeToString()).kind == "session_run"
    streamed = messages.PredictionLog(predict_streamed_log=messages.PredictStreamedLog())
    assert decode(streamed.SerializeToString()).kind == "predict_streamed"


@pytest.mark.parametrize("rate", [-1.0, 0.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("time_us", [-5, 0, 2**62])
def test_impossible_times_and_rates_are_not_told(rate: float, time_us: int) -> None:
    described = metadata(time_us=time_us, timestamp_secs=0, sampling_config={"sampling_rate": rate})
    parts = (part.SerializeToString() for part in (described, request(), response()))
    record = decode(encode(*parts))
    assert (record.time, record.sampling_rate) == (0.0, 1.0)
