"""Rotation, limits and reading of request logs."""

import errno
import gzip
import os
import random
from pathlib import Path

import pytest

from shortlist.clients.request_log import files
from shortlist.clients.request_log.files import LogFile, opened_at
from shortlist.clients.request_log.framing import frame
from shortlist.clients.request_log.reading import (
    LogFileError,
    log_files,
    read_log,
    read_records,
)
from tests.unit.clients.request_log import examples


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def all_records(folder: Path) -> list[bytes]:
    return [record for path in log_files(folder) for record in read_records(path)]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)  # does not compress


def test_a_file_is_named_by_time_host_and_process(tmp_path: Path, clock: Clock) -> None:
    file = LogFile(tmp_path / "new" / "m", clock=clock)
    assert not (tmp_path / "new").exists()  # nothing is made before the first record
    size = file.write([b"one", b"two"])
    (part,) = (tmp_path / "new").iterdir()
    assert part.stat().st_size == size
    assert part.stat().st_mode & 0o007 == 0
    file.close()
    file.close()
    (name,) = names(tmp_path / "new")
    assert part.name == f"{name}.part"
    assert name.startswith("m-20231114T221320-")
    assert f"-{os.getpid()}-" in name
    assert files.opened_at(tmp_path / "new" / name) == clock.now
    assert all_records(tmp_path) == [b"one", b"two"]


def test_records_can_be_read_as_soon_as_they_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = LogFile(tmp_path / "m")
    for number in range(3):
        file.write([b"%d" % number])
        assert len(all_records(tmp_path)) == number + 1
    assert caplog.messages[-1].endswith(".part is not finished: read its 3 whole records")
    file.abandon()  # as a killed process leaves it
    assert all_records(tmp_path) == [b"0", b"1", b"2"]


def test_a_file_ends_at_its_size_or_age(tmp_path: Path, clock: Clock) -> None:
    file = LogFile(tmp_path / "m", max_file_bytes=1000, max_file_age=60, clock=clock)
    for seed in range(4):
        file.write([noise(600, seed)])
    assert len(names(tmp_path)) == 2
    clock.now += 59
    file.write([b"x"])
    file.rotate()
    assert len(names(tmp_path)) == 3
    clock.now += 60
    file.rotate()  # what an idle server does
    assert [name for name in names(tmp_path) if name.endswith(".part")] == []
    clock.now -= 3600  # as if an operator set the clock
    file.write([b"y"])
    clock.now -= 3600
    file.rotate()
    assert [name for name in names(tmp_path) if name.endswith(".part")] == []
    assert len(all_records(tmp_path)) == 6


def test_the_oldest_files_of_the_prefix_are_deleted(tmp_path: Path, clock: Clock) -> None:
    others = ["m-notes.txt", "mm-20231114T221320-h-1-1.tfrecord.gz", "m2.tfrecord.gz"]
    for name in others:
        (tmp_path / name).write_bytes(noise(5000))
    file = LogFile(tmp_path / "m", max_file_bytes=1000, max_bytes=3500, clock=clock)
    for seed in range(6):
        clock.now += 1
        file.write([noise(1000, seed)])
    file.close()
    assert [record for path in log_files(tmp_path / "m-2*") for record in read_records(path)] == [
        noise(1000, seed) for seed in (3, 4, 5)
    ]
    assert set(others) <= set(names(tmp_path))
    few = LogFile(tmp_path / "m", max_file_bytes=1000, max_files=2, max_bytes=None, clock=clock)
    clock.now += 1
    few.write([b"new"])
    few.close()
    kept = [record for path in log_files(tmp_path / "m-2*") for record in read_records(path)]
    assert kept == [noise(1000, 5), b"new"]


def test_a_limit_can_be_for_several_prefixes(tmp_path: Path, clock: Clock) -> None:
    """Whoever may choose names must not get the limit for each of them."""
    together = [tmp_path / "a" / "m", tmp_path / "b" / "n", tmp_path / "never" / "o"]
    for seed in range(6):
        clock.now += 1
        file = LogFile(
            together[seed % 2], max_file_bytes=1000, max_bytes=3500, together=together, clock=clock
        )
        file.write([noise(1000, seed)])
        file.close()
    records = [record for path in log_files(tmp_path) for record in read_records(path)]
    assert records == [noise(1000, seed) for seed in (3, 4, 5)]


def test_a_file_that_cannot_be_deleted_stops_no_log(
    tmp_path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    file = LogFile(tmp_path / "m", max_file_bytes=1, max_bytes=1, clock=clock)
    for record in (b"1", b"2", b"3"):
        clock.now += 1
        file.write([record])
    file.close()
    assert [next(read_records(path)) for path in log_files(tmp_path)] == [b"1", b"2", b"3"]
    (warning,) = caplog.messages
    assert warning.endswith("cannot be deleted (Operation not permitted): the log grows")


def test_files_in_use_are_not_deleted_until_they_are_old(tmp_path: Path, clock: Clock) -> None:
    busy = tmp_path / "m-20231114T221319-other-1-1.tfrecord.gz.part"
    busy.write_bytes(b"")
    os.utime(busy, (clock.now, clock.now))
    file = LogFile(tmp_path / "m", max_file_bytes=1, max_files=1, max_file_age=60, clock=clock)
    file.write([b"x"])
    assert busy.exists()
    clock.now += 120
    file.write([b"y"])
    file.close()
    assert not busy.exists()


def test_a_deleted_folder_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = LogFile(tmp_path / "logs" / "m")
    file.write([b"gone"])
    for path in (tmp_path / "logs").iterdir():
        path.unlink()
    (tmp_path / "logs").rmdir()
    file.write([b"kept"])
    file.close()
    assert all_records(tmp_path) == [b"kept"]
    assert "was deleted while it was being written" in caplog.text


def test_files_are_read_in_order_of_time(tmp_path: Path) -> None:
    for hour, model in ((3, "a"), (1, "b"), (2, "a")):
        name = f"{model}-20231114T0{hour}0000-h-1-1.tfrecord.gz"
        (tmp_path / name).write_bytes(gzip.compress(frame(b"%d" % hour)))
    assert all_records(tmp_path) == [b"1", b"2", b"3"]
    assert [path.name[0] for path in log_files(tmp_path / "a-*")] == ["a", "a"]
    twice = [tmp_path, tmp_path / "a-20231114T020000-h-1-1.tfrecord.gz"]
    assert len(log_files(twice)) == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_several_parts_and_without_compression_are_read(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "x.tfrecord"
    parts = [frame(b"one"), frame(noise(3_000_000)), frame(b"")]
    path.write_bytes(b"".join(map(gzip.compress, parts) if zipped else parts))
    assert list(read_records(path)) == [b"one", noise(3_000_000), b""]
    path.write_bytes(b"")
    assert list(read_records(path)) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_off_is_read_up_to_its_last_whole_record(
    tmp_path: Path, zipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = frame(noise(100)) + frame(noise(100, 1))
    data = gzip.compress(data) if zipped else data
    path = tmp_path / "x.tfrecord"
    path.write_bytes(data[:-30])
    assert list(read_records(path)) == [noise(100)]
    assert caplog.messages == [f"{path} is not finished: read its 1 whole records"]


def test_damage_is_an_error_with_file_and_place(tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    data = bytearray(frame(b"one") + frame(b"two") + frame(b"three"))
    data[19 + 13] ^= 1
    path.write_bytes(data)
    records = read_records(path)
    assert next(records) == b"one"
    message = r"x\.tfrecord: a record is damaged at byte 19, after 1 records; restore the file"
    with pytest.raises(LogFileError, match=message):
        next(records)
    path.write_bytes(gzip.compress(data))
    with pytest.raises(LogFileError, match="damaged at unzipped byte 19"):
        list(read_records(path))
    zipped = bytearray(gzip.compress(frame(noise(5000))))
    zipped[-6] ^= 1
    path.write_bytes(zipped)
    with pytest.raises(LogFileError, match="not readable as gzip before byte"):
        list(read_records(path))


def test_other_files_are_told_from_request_logs(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("user_id,candidate_id\n1,2\n")
    with pytest.raises(LogFileError, match=r"x\.csv is not a request log, or its first record is"):
        list(read_log(path))
    path.write_bytes(frame(b"not a message"))
    with pytest.raises(LogFileError, match="record 1 is not a PredictionLog"):
        list(read_log(path))
    path.write_bytes(frame(b""))
    with pytest.raises(LogFileError, match=r"record 1 is not a PredictionLog \(it has no request"):
        list(read_log(path))
    for missing in (tmp_path / "none", tmp_path / "*.tfrecord", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(LogFileError, match="no request log at"):
            list(read_log(missing))


def test_a_file_that_is_finished_in_the_meantime_is_found(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "m")
    file.write([examples_record()])
    (part,) = log_files(tmp_path)
    file.close()
    assert list(read_records(part)) == [examples_record()]
    assert [record.model for record in read_log(tmp_path)] == ["retrieval"]


def test_files_that_were_last_written_long_ago_can_be_left_out(tmp_path: Path) -> None:
    for name, seconds in (("old", 1000), ("new", 2000)):
        path = tmp_path / f"{name}.tfrecord"
        path.write_bytes(frame(examples_record()))
        os.utime(path, (seconds, seconds))
    assert len(list(read_log(tmp_path))) == 2
    assert len(list(read_log(tmp_path, since=2000))) == 1
    assert list(read_log(tmp_path, since=2001)) == []


def examples_record() -> bytes:
    from shortlist.clients.request_log.records import encode

    return encode(
        examples.metadata().SerializeToString(),
        examples.request().SerializeToString(deterministic=True),
        examples.response().SerializeToString(deterministic=True),
    )


def test_digits_in_a_name_that_are_no_time_count_as_another_name(tmp_path: Path) -> None:
    path = tmp_path / "x-20261399T996099-host-1-1.tfrecord.gz"
    path.write_bytes(b"")
    os.utime(path, (7, 7))
    assert opened_at(path) == 7
    file = LogFile(tmp_path / "x", max_files=1)
    file.write([b"record"])  # and is the oldest, to delete first
    file.close()
    assert not path.exists()
