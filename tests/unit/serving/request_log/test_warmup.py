"""Warm-up records of recorded requests."""

from pathlib import Path

import numpy as np
import pytest

from shortlist.clients.request_log.reading import LogFileError, read_log
from shortlist.serving.request_log.selection import SelectedLog
from shortlist.serving.request_log.warmup import as_golden, varied_requests, write_warmup_file
from tests.unit.serving.request_log.examples import answer, record, write_log


def log_of(folder: Path) -> SelectedLog:
    users = [f"u{number}" for number in range(30)]
    records = [record({"user_id": [user]}, version_label="stable") for user in users * 3]
    wide = {"k": np.int32(5)}
    records += [record({"user_id": [user], **wide}, signature="retrieve") for user in users[:2]]
    records += [record({"candidate_id": ["c"]}, answer([["a"]]), signature="similar")] * 4
    records.append(record({"user_id": [b"\xff"]}, answer([["a"]])))
    return SelectedLog(write_log(folder, records))


def test_every_signature_is_there_and_no_user_twice(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    chosen = varied_requests(log, 10)
    signatures = [one.signature for one in chosen]
    assert (len(chosen), signatures.count("retrieve"), signatures.count("similar")) == (10, 2, 1)
    users = [user for one in chosen for user in one.user_ids]
    assert len(users) == len(set(users))
    (reason,) = log.left_out
    assert "not UTF-8" in reason
    # Users of `retrieve` are not asked for again.
    assert len(varied_requests(log_of(tmp_path / "again"), 1000)) == 31


def test_requests_that_no_batch_takes_can_be_left_out(tmp_path: Path) -> None:
    chosen = varied_requests(log_of(tmp_path), 1000, batchable_only=True)
    assert {one.signature for one in chosen} == {"serving_default", "similar"}


def test_the_file_is_plain_and_has_no_answers_labels_and_versions(tmp_path: Path) -> None:
    chosen = varied_requests(log_of(tmp_path / "log"), 5)
    path = tmp_path / "tf_serving_warmup_requests"
    write_warmup_file(path, chosen)
    read = list(read_log(path))
    assert [one.inputs for one in read] == [one.inputs for one in chosen]
    assert {(one.version, one.label, one.latency) for one in read} == {(None, None, None)}
    assert not any(one.outputs for one in read)
    assert [query.inputs for query in as_golden(read)] == [one.inputs for one in chosen]


def test_a_log_without_such_requests_is_refused(tmp_path: Path) -> None:
    log = SelectedLog(write_log(tmp_path, []))
    with pytest.raises(LogFileError, match="holds no records yet"):
        varied_requests(log, 10)
