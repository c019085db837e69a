"""Which records a command takes, and what it says about the others."""

from pathlib import Path

import pytest

from shortlist.clients.request_log.reading import LogFileError
from shortlist.serving.request_log.selection import SelectedLog, Selection, is_request_log
from tests.unit.serving.request_log.examples import record, write_log


def log_of(folder: Path) -> Path:
    return write_log(
        folder,
        [
            record({"user_id": ["u1"]}, version_label="stable"),
            record({"user_id": ["u2", "u3"]}, version=4, version_label="canary"),
            record({"user_id": ["u1"]}, model="other"),
        ],
    )


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 3),
        (Selection(model="retrieval"), 2),
        (Selection(version=4), 1),
        (Selection(label="stable"), 1),
        (Selection(user="u1"), 2),
        (Selection(user="u3", model="retrieval"), 1),
    ],
)
def test_records_by_what_they_are_about(tmp_path: Path, selection: Selection, count: int) -> None:
    log = SelectedLog(log_of(tmp_path), selection)
    assert len(list(log)) == log.count == count
    assert log.models == {"retrieval": 2, "other": 1}


def test_a_log_of_another_model_names_the_models_that_it_has(tmp_path: Path) -> None:
    log = SelectedLog(log_of(tmp_path), Selection(model="retrieval_ivf"))
    list(log)
    with pytest.raises(LogFileError, match=r"no records of model 'retrieval_ivf'.*retrieval \(2\)"):
        log.require(0, "records")


def test_an_empty_log_is_not_called_a_log_of_another_model(tmp_path: Path) -> None:
    log = SelectedLog(write_log(tmp_path, []), Selection(model="retrieval"))
    list(log)
    with pytest.raises(LogFileError, match="holds no records yet"):
        log.require(0, "records")


def test_records_without_what_is_needed_are_counted_by_reason(tmp_path: Path) -> None:
    broken = record({"user_id": ["u"]}, {"candidate_ids": [["a"]], "scores": [[1.0, 2.0]]})
    log = SelectedLog(write_log(tmp_path, [broken]))
    list(log)
    log.left_out["no list"] += 1
    assert log.notes() == ["left out 1: no list"]
    with pytest.raises(LogFileError, match=r"1 records but no lists \(1: no list\)"):
        log.require(0, "lists")


def test_logs_are_told_from_files_of_queries_by_name(tmp_path: Path) -> None:
    assert is_request_log("logs/a-2026.tfrecord.gz.part")
    assert is_request_log(tmp_path)
    assert is_request_log("logs/retrieval-*")
    assert not is_request_log("users.txt")


def test_reasons_are_bounded_whatever_errors_name(tmp_path: Path) -> None:
    log = SelectedLog(tmp_path)
    for number in range(300):
        log.left_out[f"reason {number}"] += 1
    log.left_out["x" * 10_000] += 1
    log.left_out["reason 0"] += 1
    assert (len(log.left_out), log.left_out.total()) == (101, 302)
    notes = log.notes()
    assert notes[:2] == ["left out 201: other reasons", "left out 2: reason 0"]
    assert notes[-1] == "left out 91: 91 more reasons"
