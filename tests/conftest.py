"""A small data set and the servables exported from it, made once per run.

Imports are inside the fixtures: tests that use none of them never load TensorFlow.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.support.once import made_once

if TYPE_CHECKING:
    from pathlib import Path

    from shortlist.export.config import ExportConfig
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.pipeline import ExportResult


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attack", metavar="GRPC_PORT:REST_PORT[:PID]", help="see tests.support.attacks"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest file first: it keeps one worker busy while the other exports."""
    items.sort(key=lambda item: item.path.name != "test_main_job.py")


def pytest_collection_finish() -> None:
    """Leave what was imported out of the garbage collections, of which each training makes some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    from shortlist.export.data import DataConfig, load

    return load(
        DataConfig(
            source="sample",
            sample_users=60,
            sample_candidates=150,
            sample_interactions=1500,
        )
    )


@pytest.fixture(scope="session")
def small_config() -> ExportConfig:
    from shortlist.export.config import ExportConfig, IvfConfig, ModelConfig, TrainConfig

    return ExportConfig(
        top_k=20,
        towers=ModelConfig(embedding_dim=8),
        train=TrainConfig(epochs=2, batch_size=128, split="random", rating_weight=1.0),
        recall=None,
        # All leaves, so that every index must agree with brute force.
        ivf=IvfConfig(num_leaves=12, num_leaves_to_search=12),
    )


@pytest.fixture(scope="session")
def small_export(
    small_dataset: Dataset, small_config: ExportConfig, tmp_path_factory: pytest.TempPathFactory
) -> ExportResult:
    from shortlist.export.pipeline import run_export
    from shortlist.export.training.checkpoint import CheckpointConfig

    def export(root: Path) -> ExportResult:
        checkpoints = CheckpointConfig(folder=root / ".training", interval=0)
        return run_export(small_dataset, small_config, root, checkpoints=checkpoints)

    return made_once(tmp_path_factory, "models", export)
