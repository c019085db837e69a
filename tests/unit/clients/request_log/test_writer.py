"""The queue and the thread of a request log."""

import errno
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from shortlist.clients.request_log.files import LogFile
from shortlist.clients.request_log.reading import log_files, read_records
from shortlist.clients.request_log.writer import LogCounts, LogWriter, QueueRoom, close_writers


def all_records(folder: Path) -> list[bytes]:
    return [record for path in log_files(folder) for record in read_records(path)]


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Disk(LogFile):
    """A file on a disk that can be full or slow."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.full = False
        self.free = threading.Event()
        self.free.set()
        self.attempts = 0

    def write(self, records: Iterable[bytes]) -> int:
        self.attempts += 1
        self.free.wait(10)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(records)


def test_records_are_written_in_order_and_counted(tmp_path: Path) -> None:
    reported: Counter[str] = Counter()
    writer = LogWriter(
        LogFile(tmp_path / "m"), report=lambda name, number: reported.update({name: number})
    )
    assert writer.offer(b"one", 3)
    assert writer.offer(lambda: b"two", 3)
    writer.close()
    writer.close()
    assert all_records(tmp_path) == [b"one", b"two"]
    (path,) = log_files(tmp_path)
    assert path.suffix == ".gz"
    assert (writer.counts.written, writer.counts.dropped, writer.counts.lost) == (2, 0, 0)
    assert reported == {"written": 2, "bytes": writer.counts.bytes}
    assert not writer.offer(b"three", 5)
    assert writer.counts.dropped == 1


def test_records_of_many_threads_are_all_written(tmp_path: Path) -> None:
    writer = LogWriter(LogFile(tmp_path / "m", max_file_bytes=2000))

    def offer(name: int) -> None:
        for number in range(500):
            writer.offer(b"%d %d" % (name, number), 10)

    threads = [threading.Thread(target=offer, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    records = [tuple(map(int, record.split())) for record in all_records(tmp_path)]
    assert sorted(records) == [(name, number) for name in range(4) for number in range(500)]
    for name in range(4):
        assert [number for owner, number in records if owner == name] == list(range(500))


def test_records_are_readable_without_close(tmp_path: Path) -> None:
    writer = LogWriter(LogFile(tmp_path / "m"))
    writer.offer(b"one", 3)
    wait_until(lambda: writer.counts.written == 1)
    assert all_records(tmp_path) == [b"one"]
    writer.close()


def test_a_slow_disk_makes_no_request_wait(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "m")
    disk.free.clear()
    writer = LogWriter(disk, room=QueueRoom(2500))
    started = time.monotonic()
    accepted = [writer.offer(bytes(100), 100) for _ in range(50)]
    assert time.monotonic() - started < 1
    assert accepted.count(True) == 10
    assert writer.counts.dropped == 40
    disk.free.set()
    wait_until(lambda: writer.counts.written == 10)
    assert writer.offer(bytes(2000), 2000)  # there is room again
    writer.close()
    assert writer.counts.written == 11


def test_a_disk_that_hangs_loses_what_is_queued_at_the_end(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "m")
    disk.free.clear()
    writer = LogWriter(disk)
    writer.offer(b"in the hands of the disk", 10)
    wait_until(lambda: disk.attempts == 1)
    writer.offer(b"queued", 10)
    writer.close(timeout=0.05)
    assert writer.counts == LogCounts(lost=1)
    disk.free.set()


def test_writers_finish_at_the_same_time(tmp_path: Path) -> None:
    """Or ten models with a disk that hangs would take ten times as long."""
    disks = [Disk(tmp_path / name) for name in "abc"]
    writers = [LogWriter(disk) for disk in disks]
    for disk, writer in zip(disks, writers, strict=True):
        disk.free.clear()
        writer.offer(b"1", 1)
    started = time.monotonic()
    close_writers(writers, 0.5)
    assert time.monotonic() - started < 1
    for disk in disks:
        disk.free.set()


def test_no_record_is_built_for_a_full_queue(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "m")
    disk.free.clear()
    writer = LogWriter(disk, room=QueueRoom(2500))
    for _ in range(9):
        assert writer.has_room()
        writer.offer(bytes(100), 100)
    assert writer.has_room()
    writer.offer(bytes(90), 90)
    assert not writer.has_room()
    assert writer.counts.dropped == 1
    disk.free.set()
    writer.close()
    assert not writer.has_room()


def test_after_an_error_the_log_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    disk = Disk(tmp_path / "m")
    writer = LogWriter(disk, retry_interval=0.05)
    writer.offer(b"before", 6)
    wait_until(lambda: writer.counts.written == 1)
    disk.full = True
    writer.offer(b"lost", 4)
    wait_until(lambda: writer.counts.lost == 1)
    writer.offer(b"lost", 4)
    wait_until(lambda: writer.counts.lost == 2)
    disk.full = False
    writer.offer(b"after", 5)
    wait_until(lambda: writer.counts.written == 2)
    writer.close()
    assert all_records(tmp_path) == [b"before", b"after"]
    said = [message for message in caplog.messages if "request log" in message]
    assert said[0] == (
        f"the request log {tmp_path / 'm'} cannot be written (No space left on device); requests "
        "go on without it, and it is tried again every 0.05 s"
    )
    assert said[1:] == [f"the request log {tmp_path / 'm'} is written again"]


def test_a_full_disk_is_tried_once_at_the_end(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "m")
    disk.full = True
    writer = LogWriter(disk)
    writer.offer(b"lost", 4)
    wait_until(lambda: writer.counts.lost == 1)
    for _ in range(20):
        writer.offer(bytes(1_000_000), 1_000_000)
    writer.close()
    assert disk.attempts == 2
    assert writer.counts.lost == 21
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_made_is_lost_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bytes:
        raise ValueError("no such tensor")

    writer = LogWriter(LogFile(tmp_path / "m"))
    writer.offer(fail, 1)
    writer.offer(b"next", 4)
    writer.close()
    assert all_records(tmp_path) == [b"next"]
    assert writer.counts.lost == 1
    assert "a request cannot be logged" in caplog.text


def test_a_full_disk_is_noticed_by_the_operating_system(tmp_path: Path) -> None:
    """/dev/full refuses each write, as a full disk does."""

    class Full(LogFile):
        def _open(self):  # type: ignore[no-untyped-def]
            self._stream = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
            return self._stream

    writer = LogWriter(Full(tmp_path / "m"))
    writer.offer(b"x", 1)
    writer.close()
    assert writer.counts.lost == 1


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    code = f"""
import os
from shortlist.clients.request_log.files import LogFile
from shortlist.clients.request_log.writer import LogWriter
writer = LogWriter(LogFile({str(tmp_path / "m")!r}))
writer.offer(b"before", 6)
while not writer.counts.written: pass
writer.offer(b"parent", 6)
if not (child := os.fork()):
    writer.offer(b"child", 5)
    writer.close()
    os._exit(0)
os.waitpid(child, 0)
"""
    # From Python 3.12 on, a fork beside threads is a warning.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")  # the parent's file is finished at its exit
    by_process = [list(read_records(path)) for path in log_files(tmp_path)]
    assert sorted(by_process) == [[b"before", b"parent"], [b"child"]]


def test_a_killed_process_leaves_what_it_had_written(tmp_path: Path) -> None:
    code = f"""
import itertools, random
from shortlist.clients.request_log.files import LogFile
from shortlist.clients.request_log.writer import LogWriter
writer = LogWriter(LogFile({str(tmp_path / "m")!r}))
for number in itertools.count():
    writer.offer(b"%d " % number + random.randbytes(500), 500)
    if writer.counts.written >= 1000:
        print(writer.counts.written, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    process.stdout.close()
    numbers = [int(record.split(b" ", 1)[0]) for record in all_records(tmp_path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= said


def test_offering_costs_microseconds(tmp_path: Path) -> None:
    """A request pays for the queue alone; the limit is far above the usual 2 µs."""
    writer = LogWriter(LogFile(tmp_path / "m"))
    started = time.perf_counter()
    for _ in range(5000):
        writer.offer(b"x" * 100, 100)
    took = time.perf_counter() - started
    writer.close()
    assert took / 5000 < 200e-6
