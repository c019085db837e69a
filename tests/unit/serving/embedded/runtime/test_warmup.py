from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from shortlist.clients.contract import WARMUP_FILE
from shortlist.clients.wire.messages import PredictionLog
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.runtime.warmup import MAX_RECORDS, replay

Reader = Callable[[Path], Iterable[bytes]]


@pytest.fixture
def version(tmp_path: Path) -> Path:
    file = tmp_path / WARMUP_FILE
    file.parent.mkdir()
    file.touch()
    return tmp_path


def record(name: str) -> bytes:
    entry = PredictionLog()
    entry.predict_log.request.model_spec.name = name
    return entry.SerializeToString()


def reader(*records: bytes) -> Reader:
    return lambda path: iter(records)


def test_version_without_records_needs_no_warmup(tmp_path: Path) -> None:
    ran: list[PredictionLog] = []
    assert replay(str(tmp_path), ran.append, read_records=reader(record("m"))) == 0
    assert not ran


def test_every_record_is_run_as_often_as_requested(version: Path) -> None:
    ran: list[str] = []
    count = replay(
        str(version),
        lambda entry: ran.append(entry.predict_log.request.model_spec.name),
        read_records=reader(record("a"), record("b")),
        iterations=2,
    )
    assert count == 2
    assert ran == ["a", "a", "b", "b"]


def test_record_that_does_not_parse_fails(version: Path) -> None:
    with pytest.raises(
        StatusError, match="Failed to parse warmup record: nonsense from "
    ) as caught:
        replay(str(version), lambda entry: None, read_records=reader(b"nonsense"))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message.endswith(str(version / WARMUP_FILE))


def test_damaged_file_is_reported_with_the_expected_format(version: Path) -> None:
    def damaged(path: Path) -> Iterable[bytes]:
        yield record("a")
        raise StatusError(Code.DATA_LOSS, "truncated record at 79")

    with pytest.raises(StatusError, match=r"79\. Please verify your warmup data is in TFRecord"):
        replay(str(version), lambda entry: None, read_records=damaged)


def test_too_many_records_fail(version: Path) -> None:
    many = [record("a")] * (MAX_RECORDS + 1)
    assert replay(str(version), lambda entry: None, read_records=reader(*many[1:])) == MAX_RECORDS
    with pytest.raises(StatusError, match=r"exceeds the maximum \(1000\) at "):
        replay(str(version), lambda entry: None, read_records=reader(*many))


def test_failing_request_fails_the_replay(version: Path) -> None:
    def fail(entry: PredictionLog) -> None:
        raise StatusError(Code.NOT_FOUND, "Op type not registered")

    with pytest.raises(StatusError, match="Op type not registered"):
        replay(str(version), fail, read_records=reader(record("a")))
