"""What the index of a changed corpus takes over is read from the version alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig
from shortlist.export.data.change import CorpusChange
from shortlist.export.index.base import Effort
from shortlist.export.index.build import build_index
from shortlist.export.own.published import previous_index
from shortlist.serving.repository.version import Manifest, Shard, read_manifest, write_manifest

IDS = [f"c{number}" for number in range(2500)]
ROWS = np.random.default_rng(2).standard_normal((2500, 4)).astype(np.float32)


def version(path: Path, kind: str, config: IndexConfig) -> Path:
    """Write the parts of a version that matter here: its checkpoint and its manifest."""
    index = build_index(kind, ROWS, IDS, config)
    ids = tf.Variable([*IDS, ""])
    tf.train.Checkpoint(_index=index, _candidate_ids=ids).write(
        str(path / "variables" / "variables")
    )
    entry = {"kind": kind, **index.parameters(), "recall": {"explored_leaves": 7}}
    (path / "assets.extra").mkdir(exist_ok=True)
    write_manifest(path, Manifest(index=entry))
    return path


@pytest.mark.parametrize(("num_leaves", "group_size"), [(60, 60), (2400, 16)])
def test_leaves_and_effort_come_out_of_a_version(
    tmp_path: Path, num_leaves: int, group_size: int
) -> None:
    config = IvfConfig(num_leaves=num_leaves, num_leaves_to_search=9)
    previous = previous_index(version(tmp_path, "ivf", config))
    assert previous is not None
    assert previous.effort == Effort(9, None)
    assert previous.explored_leaves == 7
    leaves = previous.leaves
    assert leaves is not None
    assert (len(leaves.members), leaves.group_size) == (num_leaves, group_size)
    change = CorpusChange(before=2500, kept=np.arange(100, 2500), added=20)
    after = previous.after(change).leaves
    assert after is not None
    assert after.unplaced() == 20
    rows = change.rows(ROWS, ROWS[:20] + 1)
    index = build_index("ivf", rows, IDS[:2420], config, leaves=after)
    assert index.parameters()["num_leaves"] == num_leaves
    assert index.search(tf.constant(rows[-20:] * 9), 1)[1].shape == (20, 1)


def test_what_cannot_be_read_is_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = version(tmp_path, "ivf", IvfConfig(num_leaves=60))
    manifest = read_manifest(path)
    assert manifest is not None
    write_manifest(path, replace(manifest, shard=Shard(number=0, count=2)))
    of_shard = previous_index(path)
    assert of_shard is not None
    assert of_shard.leaves is None
    write_manifest(path, manifest)
    (path / "variables" / "variables.index").unlink()
    without = previous_index(path)
    assert without is not None
    assert without.leaves is None
    assert without.effort == Effort(60, None)
    assert "has no leaves that this release can read" in caplog.text


def test_an_index_without_effort_has_nothing_to_take_over(tmp_path: Path) -> None:
    assert previous_index(version(tmp_path, "brute_force", BruteForceConfig())) is None
    write_manifest(tmp_path, Manifest())
    assert previous_index(tmp_path) is None
