"""Recorded retrievals as arguments of `retrieve`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import GrpcClient
from shortlist.clients.cli.main import main
from shortlist.clients.request_log.reading import LogFileError
from shortlist.clients.request_log.records import SHADOW, decode
from shortlist.clients.testing import FakeServer
from shortlist.clients.types import Filter
from shortlist.clients.wire import messages
from shortlist.serving.request_log.queries import (
    distinct_queries,
    input_rows,
    queries_of,
    recorded_queries,
)
from shortlist.serving.request_log.selection import SelectedLog
from tests.unit.serving.request_log.examples import START, answer, record, write_log

QUERY: dict[str, Any] = {
    "user_id": ["u1", ""],
    "history": [["x", "y"], ["z", ""]],
    "history_age": np.array([[60.0, -1.0], [5.0, -1.0]], np.float32),
    "history_weight": np.zeros((2, 0), np.float32),
    "features": [["device=mobile", "genre=Drama"], ["genre=Horror", ""]],
    "k": np.int32(7),
    "exclude": [["a"], [""]],
    "exclude_history": np.bool_(False),
    "exclude_seen": np.bool_(True),
    "filter_any": ["genre=Comedy", "genre=Drama"],
    "filter_all": np.array([], object),
    "filter_min": ["year=1990.0"],
    "filter_max": np.array([], object),
}


def test_a_request_by_history_is_asked_again_with_all_that_it_said() -> None:
    data = record(QUERY, answer([["a"], []]), signature="retrieve_by_query", at=1.5)
    first, second = queries_of(decode(data))
    assert first.arguments == {
        "user_ids": ["u1"],
        "history": [["x", "y"]],
        "history_ages": [[60.0, None]],
        "features": [{"device": ["mobile"], "genre": ["Drama"]}],
        "exclude": ["a"],
        "k": 7,
        "exclude_history": False,
        "exclude_seen": True,
        "filter": Filter(any={"genre": ["Comedy", "Drama"]}, min={"year": 1990.0}),
    }
    assert (first.user_id, first.history, first.time) == ("u1", ("x", "y"), START + 1.5)
    assert "exclude" not in second.arguments
    assert second.answer.candidate_ids == ()
    assert second.line() == {
        "user_id": "",
        "history": ["z"],
        "ages": [5.0],
        "features": {"genre": ["Horror"]},
    }


def test_the_clients_make_the_recorded_request_of_it() -> None:
    """What goes out is what was recorded, tensor by tensor."""
    (query, _) = queries_of(
        decode(record(QUERY, answer([["a"], []]), signature="retrieve_by_query"))
    )
    with FakeServer() as server, GrpcClient(server.grpc_address) as client:
        client.retrieve(**query.arguments)
    sent = next(call.inputs for call in server.calls if call.signature == "retrieve_by_query")
    expected = {name: np.asarray(value).tolist() for name, value in QUERY.items()}
    expected |= {"user_id": ["u1"], "history": [["x", "y"]], "history_age": [[60.0, -1.0]]}
    expected |= {"history_weight": [[]], "exclude": [["a"]]}
    expected["features"] = [["device=mobile", "genre=Drama"]]
    assert sent == expected


def test_other_models_are_asked_by_their_own_inputs() -> None:
    lists = {"output_1": np.array([[1.5]], np.float32), "output_2": [["a"]]}
    inputs = {"who": [["u1"]], "age": np.array([41], np.int64)}
    (query,) = queries_of(decode(record(inputs, lists, model="plain")))
    assert query.user_id == "u1"
    assert query.arguments["user_ids"] == ["u1"]
    assert query.arguments["features"] == [{"age": 41}]
    assert query.line() == {"who": ["u1"], "age": 41}  # as `publish --queries` takes it


def test_a_tower_with_inputs_of_its_own_and_outputs_of_ours() -> None:
    (query,) = queries_of(decode(record({"who": ["u1"], "k": np.int32(3)}, answer())))
    assert query.arguments == {"user_ids": ["u1"], "k": 3}
    assert queries_of(decode(record({"who": ["u1"], "country": ["fr"]}, answer()))) == []


def test_what_cannot_be_asked_again_is_counted(tmp_path: Path) -> None:
    log = SelectedLog(
        write_log(
            tmp_path,
            [
                record({"user_id": ["u1"]}),
                record({"candidate_id": ["c"]}, signature="similar"),
                record({"query_embedding": [[0.5]]}, signature="retrieve_by_embedding"),
                record({"user_id": ["a", "b"]}, answer([["x"]])),
                record({"user_id": ["u2"]}, request_origin=SHADOW),
            ],
        )
    )
    assert [query.user_id for query in recorded_queries(log)] == ["u1"]
    assert log.left_out == {
        "not a retrieval": 1,
        "a retrieval by an embedding, which only its version can read": 1,
        "not readable (2 user ids have 1 answers)": 1,
        "a shadow copy, whose answer no caller got": 1,
    }


def test_no_user_comes_twice_and_equal_requests_without_users_neither(tmp_path: Path) -> None:
    users = [f"u{number % 50}" for number in range(200)]
    records = [record({"user_id": [user]}, at=number) for number, user in enumerate(users)]
    records += [record({"user_id": [""], "history": [["x"]]})] * 2
    write_log(tmp_path, records)
    queries = distinct_queries(SelectedLog(tmp_path), 100)
    assert len(queries) == 51
    assert len({query.user_id for query in queries}) == 51
    few = distinct_queries(SelectedLog(tmp_path), 10)
    assert [query.identity for query in few] == [query.identity for query in queries[:10]]


def test_a_log_without_retrievals_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path, [record({"candidate_id": ["c"]}, signature="similar")])
    with pytest.raises(LogFileError, match=r"no retrieval .* \(1: not a retrieval\)"):
        distinct_queries(SelectedLog(tmp_path), 10)


@pytest.mark.parametrize(
    "inputs",
    [
        {"user_id": ["u1"], "features": [[0.5]]},  # another model's input of our name
        {"user_id": ["u1"], "k": [3]},
        {"user_id": ["u1"], "history": [["a"], ["b"]]},
        {"user_id": ["u1"], "country": ["fr", "de"]},
        {"user_id": ["u1"], "filter_any": "x=y"},
        {"user_id": np.zeros((1, 0), object)},
        {"user_id": [b"\xff"]},  # b'\\xff' as text would be another user
    ],
)
def test_inputs_of_another_form_are_counted(tmp_path: Path, inputs: dict[str, Any]) -> None:
    write_log(tmp_path, [record(inputs, answer()), record({"user_id": ["u2"]})])
    log = SelectedLog(tmp_path)
    assert [query.user_id for query in recorded_queries(log)] == ["u2"]
    assert sum(log.left_out.values()) == 1


def test_rows_of_requests_whose_inputs_differ_in_length_are_counted(tmp_path: Path) -> None:
    write_log(
        tmp_path,
        [
            record({"user_id": ["a", "b"], "age": [1]}, answer()),
            record({"user_id": ["a"], "age": 1}, answer()),
            record({"user_id": ["c"], "age": [2]}, answer()),
        ],
    )
    log = SelectedLog(tmp_path)
    assert input_rows(log, ["user_id", "age"], 10) == [{"user_id": "c", "age": 2}]
    assert sum(log.left_out.values()) == 2


def test_a_record_that_is_not_readable_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = messages.PredictionLog.FromString(record({"user_id": ["u1"]}))
    damaged.predict_log.request.inputs["user_id"].dtype = messages.DataType.DT_INVALID
    write_log(tmp_path, [damaged.SerializeToString(), record({"user_id": ["u2"]})])
    assert main(["log", "show", str(tmp_path), "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "type number 0" in first["not_readable"]
    assert second["inputs"] == {"user_id": ["u2"]}
