"""Loading SavedModels in a process of their own, when that process ends early."""

import sys
from pathlib import Path

import pytest

from shortlist.serving.errors import ModelServerError
from shortlist.serving.servers.check import Asked, ask_in_fresh_process
from tests.support.programs import install

ASKED = [Asked(name=name, version=4, path=Path("/m")) for name in ("good", "bad")]
STDERR = "echo 'loading good version 4' >&2; echo 'loading bad version 4' >&2; echo boom >&2"


@pytest.mark.parametrize(
    ("end", "timeout", "message"),
    [
        ("kill -9 $$", 60.0, r"ended with status -9 while loading bad version 4: boom"),
        ("exec sleep 60", 1.0, r"took more than 1 s while loading bad version 4"),
    ],
)
def test_the_servable_that_was_loading_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, timeout: float, message: str
) -> None:
    install(tmp_path, "python", f"{STDERR}; {end}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ModelServerError, match=message):
        ask_in_fresh_process(ASKED, timeout=timeout)
