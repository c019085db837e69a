"""Linux's description of the processor decides whether rows are bfloat16."""

from pathlib import Path

import pytest

from shortlist.export.index.ivf import multiplies_bfloat16


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
def test_flags_decide(tmp_path: Path, text: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text, encoding="utf-8")
    assert multiplies_bfloat16(cpuinfo) is expected


def test_a_missing_description_means_no(tmp_path: Path) -> None:
    assert not multiplies_bfloat16(tmp_path / "missing")
