"""The framing of TFRecord files."""

import struct
import sys
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.clients.errors import ShortlistError
from shortlist.clients.request_log import framing
from shortlist.clients.request_log.framing import DamagedError, frame, is_framed, unframed


def drained(chunks: list[bytes]) -> tuple[list[bytes], int]:
    records, generator = [], unframed(chunks)
    while True:
        try:
            records.append(next(generator))
        except StopIteration as stop:
            return records, stop.value


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(min_value=0), max_size=5))
def test_records_survive_however_the_file_is_cut_into_parts(
    records: list[bytes], places: list[int]
) -> None:
    data = b"".join(map(frame, records))
    assert drained(cut(data, places)) == (records, 0)


@given(st.lists(st.binary(max_size=40), min_size=1), st.integers(min_value=0))
def test_a_file_that_ends_early_has_its_whole_records(records: list[bytes], place: int) -> None:
    data = b"".join(map(frame, records))[: place % sum(16 + len(record) for record in records)]
    whole, rest = drained([data])
    assert whole == records[: len(whole)]
    assert sum(16 + len(record) for record in whole) + rest == len(data)


@given(st.lists(st.binary(max_size=40), min_size=1), st.data())
def test_no_changed_byte_changes_a_record(records: list[bytes], data: st.DataObject) -> None:
    framed = bytearray(b"".join(map(frame, records)))
    place = data.draw(st.integers(0, len(framed) - 1))
    framed[place] ^= data.draw(st.integers(1, 255))
    read: list[bytes] = []
    with pytest.raises(DamagedError) as caught:
        read.extend(unframed([bytes(framed)]))
    assert read == records[: len(read)]
    assert caught.value.offset == sum(16 + len(record) for record in read) <= place


def test_a_frame_is_that_of_the_format() -> None:
    """From TensorFlow: tf.io.TFRecordWriter wrote these for b"abc"."""
    assert frame(b"abc").hex() == "0300000000000000b099490e6162636e57f121"


def test_the_start_of_a_frame_is_told_from_gzip() -> None:
    size = 0x00088B1F  # as long a record begins like a gzip file
    assert is_framed(frame(bytes(size))[:20])
    assert not is_framed(struct.pack("<QI", size, 0))
    assert not is_framed(b"\x1f\x8b")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: Any) -> None:
    framing.checksum.cache_clear()
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    try:
        with pytest.raises(ShortlistError, match=r"pip install 'shortlist\[log\]'"):
            frame(b"")
    finally:
        framing.checksum.cache_clear()


def test_a_record_of_many_parts_is_joined_once() -> None:
    """Else a file of some megabytes could keep a reader busy for hours."""
    data = frame(bytes(2**24))
    parts = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    started = time.process_time()
    assert drained(parts) == ([bytes(2**24)], 0)
    assert time.process_time() - started < 3


def test_a_record_that_no_message_is_as_long_as_is_damage() -> None:
    size = struct.pack("<Q", 2**40)
    length_crc = struct.unpack_from("<I", frame(size), 8 + 4 + 8)[0]  # of the same 8 bytes
    with pytest.raises(DamagedError, match="a record of 1,099,511,627,776 bytes is too long"):
        drained([struct.pack("<QI", 2**40, length_crc)])
