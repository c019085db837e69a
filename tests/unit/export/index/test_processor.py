"""Whether bfloat16 is worth it is read from Linux's description of the processor."""

from pathlib import Path

import pytest

from shortlist.export.index.processor import multiplies_bfloat16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu amx_bf16\nflags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("model name\t: avx512_bf16\nflags\t\t:\n", False),
        ("", False),
    ],
)
def test_flags_tell(tmp_path: Path, text: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text, encoding="utf-8")
    assert multiplies_bfloat16(cpuinfo) is expected


def test_without_a_description_it_is_not(tmp_path: Path) -> None:
    assert not multiplies_bfloat16(tmp_path / "missing")
