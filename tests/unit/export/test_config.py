"""Configurations refuse values that cannot work."""

from collections.abc import Callable
from typing import Any

import pytest

from shortlist.export.config import ExportConfig, IvfConfig, ModelConfig, ScannConfig, TrainConfig


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (ModelConfig, {"embedding_dim": 0}, "embedding_dim must be positive, got 0"),
        (
            ModelConfig,
            {"inner_product_weight": -1},
            "inner_product_weight must not be negative, got -1",
        ),
        (TrainConfig, {"norm_penalty": -0.1}, "norm_penalty must not be negative, got -0.1"),
        (TrainConfig, {"seen_last_epochs": -1}, "seen_last_epochs must not be negative, got -1"),
        (TrainConfig, {"held_out_fraction": 1.0}, "between 0 and 1, got 1.0"),
        (TrainConfig, {"seed": -1}, "seed must lie in"),
        (IvfConfig, {"num_leaves": 3, "num_leaves_to_search": 4}, "at most num_leaves, got 4 > 3"),
        (ScannConfig, {"num_reordering_candidates": 0}, "must be positive, got 0"),
        (ExportConfig, {"indexes": ("faiss",)}, "unknown index 'faiss'; choose from"),
        (ExportConfig, {"indexes": ()}, "at least one of"),
        (ExportConfig, {"indexes": ("ivf", "ivf")}, "distinct"),
        (ExportConfig, {"top_k": 0}, "top_k must be positive"),
    ],
)
def test_value_out_of_range_is_refused(
    make: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
