"""A space names settings by the keys of the configuration and refuses what cannot work."""

from typing import Any

import pytest

from shortlist.export.config import ExportConfig
from shortlist.export.search.space import (
    DEFAULT_SPACE,
    Choices,
    Range,
    read_space,
    with_settings,
)

CONFIG = ExportConfig()


def test_lists_and_ranges_are_read_by_the_types_of_the_settings() -> None:
    space = read_space(
        {
            "towers": {"embedding_dim": [16, 32], "temperature": {"low": 0.1, "high": 1}},
            "train": {"batch_size": {"low": 8, "high": 64, "log": True}, "optimizer": ["adam"]},
        },
        CONFIG,
    )
    assert space == {
        "towers.embedding_dim": Choices((16, 32)),
        "towers.temperature": Range(low=0.1, high=1.0),
        "train.batch_size": Range(low=8, high=64, log=True, whole=True),
        "train.optimizer": Choices(("adam",)),
    }


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "space is empty"),
        ({"data": {"source": ["a"]}}, r"\[towers\] and \[train\] only, got data"),
        ({"train": {"held_out_fraction": [0.1]}}, "held_out_fraction cannot be searched"),
        ({"train": {"seed": [1, 2]}}, "seed cannot be searched"),
        ({"towers": {"temperature": [0.1, 0.0]}}, "temperature must be positive"),
        ({"towers": {"temperature": 0.1}}, "must be a list of values or {low"),
        ({"towers": {"temperature": {"low": 1, "high": 0.5}}}, "must be less than high"),
        ({"towers": {"inner_product_weight": {"low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"towers": {"embedding_dim": [8, "16"]}}, "takes values such as 1, got '16'"),
        ({"towers": {"query_tower": {"low": 0, "high": 1}}}, "must be a list of values, got"),
        ({"towers": {"query_tower": ["lstm"]}}, "query_tower must be one of"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_space(tables, CONFIG)


def test_the_default_space_holds_the_default_settings() -> None:
    for key, dimension in DEFAULT_SPACE.items():
        table, _, name = key.partition(".")
        now = getattr(getattr(CONFIG, table), name)
        if isinstance(dimension, Choices):
            assert now in dimension.values
        else:
            assert dimension.low <= now <= dimension.high
            assert with_settings(CONFIG, {key: dimension.low}) != CONFIG
