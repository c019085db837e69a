"""Publications that servers load without a rollout."""

from pathlib import Path

import pytest

from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from shortlist.serving.rollout.versions import live_at_once
from tests.unit.serving.rollout.fakes import NAME, publish

NEWEST = ModelEntry()
PINNED = ModelEntry(versions=(1,), labels={"stable": 1, "canary": 1})


@pytest.mark.parametrize(
    ("entries", "version", "commands"),
    [
        (None, 2, None),
        ({"other": NEWEST}, 2, None),
        ({NAME: PINNED}, 2, None),
        ({NAME: NEWEST}, 2, ["shortlist promote 2", "shortlist rollback --to 1"]),
        ({NAME: NEWEST}, 1, ["shortlist promote 1"]),
        (
            {NAME: NEWEST, "other": PINNED},
            2,
            [
                f"shortlist promote 2 --servable {NAME}",
                f"shortlist rollback --to 1 --servable {NAME}",
            ],
        ),
    ],
)
def test_a_version_is_live_at_once_if_servers_take_the_newest(
    tmp_path: Path,
    entries: dict[str, ModelEntry] | None,
    version: int,
    commands: list[str] | None,
) -> None:
    publish(tmp_path, 1, 2)
    if entries is not None:
        write_config(tmp_path / CONFIG_FILE, tmp_path, entries)
    line = live_at_once(ModelRepository(tmp_path), [NAME], version)
    if commands is None:
        assert line is None
        return
    assert line is not None
    assert f"load the newest version of {NAME} at once, so version {version} is live" in line
    assert line.split("`")[1::2] == [*commands, "shortlist canary"]
