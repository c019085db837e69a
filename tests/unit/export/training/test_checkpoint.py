"""A resumed training gives the same result as an uninterrupted one."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shortlist.clients.cli.main import main
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, configured_split, make_split
from shortlist.export.pipeline import ExportResult
from shortlist.export.progress import Progress, TrainingState
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.checkpoint import (
    Checkpoint,
    CheckpointConfig,
    CheckpointError,
    data_fingerprint,
)
from shortlist.export.training.train import train

MODEL = ModelConfig(embedding_dim=8, query_tower="table")
HISTORY = ModelConfig(embedding_dim=8, order_dimension=8)
RECIPES = {
    "history": TrainConfig(epochs=4, batch_size=64, patience=2, split="leave_last_out"),
    "users": TrainConfig(epochs=6, batch_size=16, learning_rate=0.03, patience=2),
    "sampled": TrainConfig(epochs=4, batch_size=16, sampled_candidates=50),
    "seen_last": TrainConfig(epochs=3, batch_size=16, seen_last_epochs=3),
    "interactions": TrainConfig(
        loss="in_batch_softmax", optimizer="adagrad", epochs=3, batch_size=256, learning_rate=0.1
    ),
}


class InterruptedByTestError(Exception):
    """Simulates a killed process."""


class Interrupting(Progress):
    """Ends a training at its first report and stores that."""

    def __init__(self) -> None:
        self.reports: list[TrainingState] = []

    def batches_done(self, state: TrainingState) -> None:
        self.reports.append(state)
        raise InterruptedByTestError


class Copying(Progress):
    """Stores the reports, and what a process killed at each of them would leave in `folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.reports: list[TrainingState] = []
        self.left: list[bytes] = []
        self._folder = folder

    def batches_done(self, state: TrainingState) -> None:
        self.reports.append(state)
        if self._folder is not None:
            file = self._folder / "training.checkpoint"
            self.left.append(file.read_bytes() if file.exists() else b"")


@pytest.fixture(scope="module")
def split(small_dataset: Dataset) -> Split:
    return make_split(small_dataset, held_out_fraction=0.2, seed=1, validation_fraction=0.1)


def assert_same_model(dataset: Dataset, model: TrainedModel, expected: TrainedModel) -> None:
    users = np.arange(len(dataset.user_ids))
    np.testing.assert_array_equal(model.embed_users(users), expected.embed_users(users))
    np.testing.assert_array_equal(model.candidate_embeddings, expected.candidate_embeddings)
    assert model.records == expected.records
    assert model.epochs == expected.epochs


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_interrupted_training_ends_like_one_that_was_not(
    small_dataset: Dataset, tmp_path: Path, recipe: str
) -> None:
    config, towers = RECIPES[recipe], HISTORY if recipe == "history" else MODEL
    split = configured_split(small_dataset, config)
    checkpoints = CheckpointConfig(folder=tmp_path, interval=0)
    whole = Copying(tmp_path)
    expected = train(small_dataset, split, towers, config, progress=whole, checkpoints=checkpoints)
    total = len(whole.reports)
    phases = [report.phase for report in whole.reports]
    # In the first phase and in the last; with order, where that is learned and at the end.
    interrupted = {total} if recipe == "sampled" else {total // 3, total}
    if "search, order" in phases:
        interrupted = {phases.index("search, order") + 1, total}
    for at in sorted(interrupted):
        (tmp_path / "training.checkpoint").write_bytes(whole.left[at - 1])
        rest = Copying()
        model = train(
            small_dataset,
            split,
            towers,
            config,
            progress=rest,
            checkpoints=dataclasses.replace(checkpoints, resume=True),
        )
        assert len(rest.reports) <= total - at + 1, "it started from the beginning"
        assert_same_model(small_dataset, model, expected)


@pytest.mark.slow
def test_checkpoints_do_not_change_the_training(
    small_dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    checkpoints = CheckpointConfig(folder=tmp_path, interval=0)
    config = RECIPES["interactions"]
    saved = train(small_dataset, split, MODEL, config, checkpoints=checkpoints)
    assert_same_model(small_dataset, saved, train(small_dataset, split, MODEL, config))


def test_other_training_is_refused_and_the_difference_named(
    small_dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    config = RECIPES["interactions"]
    checkpoints = CheckpointConfig(folder=tmp_path, interval=0)
    train(small_dataset, split, MODEL, config, checkpoints=checkpoints)
    resumed = dataclasses.replace(checkpoints, resume=True)
    other = dataclasses.replace(config, epochs=5)
    with pytest.raises(CheckpointError, match=r"to another training: train.epochs was 3 and is"):
        train(small_dataset, split, MODEL, other, checkpoints=resumed)
    fewer = Split(training=split.training[1:], held_out=split.held_out)
    with pytest.raises(CheckpointError, match=r"data.fingerprint was .*start again without --res"):
        train(small_dataset, fewer, MODEL, config, checkpoints=resumed)
    # The default for the data and its name are the same.
    named = dataclasses.replace(config, split=split.method)
    train(small_dataset, split, MODEL, named, checkpoints=resumed)


def test_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    config = CheckpointConfig(folder=tmp_path, interval=0, resume=True)
    (tmp_path / "training.checkpoint").write_bytes(b"half of")
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*\); delete it, or start again"):
        Checkpoint(config, {}).restored()


def test_resume_without_checkpoint_starts_at_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(CheckpointConfig(folder=tmp_path / "none", resume=True), {})
    with caplog.at_level(logging.WARNING):
        assert checkpoint.restored() is None
    assert "no checkpoint in" in caplog.text


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoint = Checkpoint(CheckpointConfig(folder=tmp_path / "file"), {})
    with pytest.raises(CheckpointError, match=r"cannot write .* another folder with --checkpoin"):
        checkpoint.save(phase="fit", carried={}, loop={}, arrays=[])


def test_checkpoints_are_spaced(tmp_path: Path) -> None:
    checkpoint = Checkpoint(CheckpointConfig(folder=tmp_path, interval=1000), {})
    assert not checkpoint.due()
    with pytest.raises(ValueError, match="interval must not be negative, got -1"):
        CheckpointConfig(folder=tmp_path, interval=-1)


def test_fingerprint_tells_data_apart(small_dataset: Dataset, split: Split) -> None:
    renamed = dataclasses.replace(small_dataset, user_ids=("somebody", *small_dataset.user_ids[1:]))
    bare = dataclasses.replace(small_dataset, attributes={})
    prints = {data_fingerprint(data, split) for data in (small_dataset, renamed, bare)}
    assert len(prints) == 3
    assert data_fingerprint(small_dataset, split) in prints


@pytest.mark.slow
def test_publication_removes_the_checkpoint(small_export: ExportResult) -> None:
    """The training was saved after every step, as `conftest` wants it."""
    repository = small_export.servables["retrieval_ivf"].parents[1]
    assert not list(repository.glob(".training*"))


KILLED = """
import sys
from pathlib import Path
from shortlist.clients.cli.main import main
from shortlist.export.training.checkpoint import CheckpointConfig
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data import DataConfig, load
from shortlist.export.data.split import make_split
from shortlist.export.training.train import train
data = load(DataConfig(source="sample", sample_users=60, sample_candidates=150,
                       sample_interactions=1500))
split = make_split(data, held_out_fraction=0.2, seed=1, validation_fraction=0.1)
train(data, split, ModelConfig(embedding_dim=8, query_tower="table"),
      TrainConfig(epochs=10**6, patience=10**6),
      checkpoints=CheckpointConfig(folder=Path(sys.argv[1]), interval=0))
"""


@pytest.mark.slow
def test_killed_process_leaves_a_whole_checkpoint(
    small_dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    """Killed at any moment, also while it writes."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    try:
        deadline = time.monotonic() + 90
        file = tmp_path / "training.checkpoint"
        while not file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    config = TrainConfig(epochs=10**6, patience=10**6)
    progress = Interrupting()
    with pytest.raises(InterruptedByTestError):
        train(
            small_dataset,
            split,
            MODEL,
            config,
            progress=progress,
            checkpoints=CheckpointConfig(folder=tmp_path, resume=True),
        )
    assert progress.reports[0].done > 1


def test_command_refuses_the_checkpoint_of_another_configuration(
    small_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = make_split(small_dataset, held_out_fraction=0.2, seed=42, validation_fraction=0.1)
    config = TrainConfig(epochs=1, batch_size=16)
    checkpoints = CheckpointConfig(folder=tmp_path / "models/.training-music", interval=0)
    train(small_dataset, split, MODEL, config, checkpoints=checkpoints)
    arguments = ["export", "--data", "sample", "--sample-users", "60", "--sample-candidates", "150"]
    arguments += ["--sample-interactions", "1500", "--repository", str(tmp_path / "models")]
    arguments += ["--model", "music", "--epochs", "1", "--embedding-dim", "8", "--resume"]
    arguments += ["--query-tower", "table"]
    assert main([*arguments, "--batch-size", "32"]) == 1
    error = capsys.readouterr().err
    assert "belongs to another training: train.batch_size was 16 and is now 32" in error
    assert "without --resume" in error
