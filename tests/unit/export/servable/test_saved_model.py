"""Servables are refused if the target server lacks an op."""

from pathlib import Path

import pytest

from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.gates.settings import GateSettings
from shortlist.export.pipeline import run_export
from shortlist.export.servable.target import check_target


def test_stock_server_has_core_ops_only() -> None:
    check_target("stock-2.20", "retrieval_ivf", ["MatMul", "TopKV2"])
    check_target("embedded", "retrieval_scann", ["MatMul", "Scann>TensorsToScann"])
    with pytest.raises(ValueError, match="retrieval_scann needs the op 'Scann>TensorsToScann'"):
        check_target("stock-2.20", "retrieval_scann", ["MatMul", "Scann>TensorsToScann"])
    with pytest.raises(ValueError, match="needs the op 'FromTheFuture', which embedded"):
        check_target("embedded", "retrieval_ivf", ["FromTheFuture"])


def test_nothing_is_published_for_a_target_that_cannot_run_it(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    config = ExportConfig(target="stock-2.20")
    with pytest.raises(ValueError, match="retrieval_scann needs the op 'Scann>"):
        run_export(small_dataset, config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_trained_for_a_target_that_is_too_old_for_the_format(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    message = "writes graph format [0-9]+, and --target-producer is 1000; export with the target"
    with pytest.raises(ValueError, match=message):
        run_export(
            small_dataset, ExportConfig(), tmp_path, gates=GateSettings(target_producer=1000)
        )
    assert list(tmp_path.iterdir()) == []
