"""Programs that tests put in place of the real ones."""

import os
from pathlib import Path

import pytest

from shortlist.serving.servers import compose


@pytest.fixture(autouse=True)
def _fresh_search_for_compose() -> None:
    compose.compose_command.cache_clear()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
