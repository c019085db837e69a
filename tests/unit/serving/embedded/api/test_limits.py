import resource
from pathlib import Path

import pytest

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.limits import (
    MIB,
    MemoryRoom,
    RequestLimits,
    default_memory,
    descriptor_share,
)


def test_room_is_shared_and_comes_back() -> None:
    room = MemoryRoom(100)
    room.need(60)
    assert not room.take(41)
    assert room.take(40)
    with pytest.raises(StatusError, match=r"--request_memory_mb\); try again") as refusal:
        room.need(1)
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED
    room.give(60)
    assert room.taken == 40
    room.give(40)
    assert room.taken == 0


@pytest.mark.parametrize(
    ("soft", "shares"),
    [(1024, (384, 192)), (100, (16, 16)), (10**6, (9000, 9000)), (-1, (9000,) * 2)],
)
def test_connections_share_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, shares: tuple[int, int]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert (descriptor_share(2, most=9000), descriptor_share(4, most=9000)) == shares


def test_room_without_limit_takes_everything() -> None:
    assert MemoryRoom(0).take(10**15)


def test_refusal_names_count_limit_flag_and_remedy() -> None:
    limits = RequestLimits(max_rows=10_000, max_results=100)
    with pytest.raises(StatusError) as refusal:
        limits.check_rows(250_000)
    assert refusal.value.message == (
        "the request has 250000 rows; this server takes 10000 (--max_request_rows): send them in "
        "several requests"
    )
    with pytest.raises(StatusError, match=r"101 results \(1 rows x k=101\)"):
        limits.check_results(1, 101)
    limits.check_rows(10_000)
    limits.check_results(10, 10)


def test_zero_is_no_limit() -> None:
    limits = RequestLimits(
        max_bytes=0, max_values=0, max_rows=0, max_results=0, max_response_bytes=0
    )
    limits.check_bytes(10**12)
    limits.check_values(10**12)
    limits.check_rows(10**12)
    limits.check_results(10**6, 10**6)
    limits.check_response(10**12)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("memory.max", "1073741824\n", 256 * MIB),
        ("memory/memory.limit_in_bytes", "1073741824\n", 256 * MIB),
        ("memory.max", "268435456\n", 128 * MIB),
    ],
)
def test_default_memory_follows_the_control_group(
    tmp_path: Path, file: str, text: str, expected: int
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert default_memory(tmp_path) == expected


def test_default_memory_without_a_limit_follows_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert 128 * MIB <= default_memory(tmp_path) <= 1024 * MIB
