"""What settings can be chosen from."""

from collections.abc import Mapping
from typing import Literal

from shortlist.clients.contract import INDEXES
from shortlist.serving.installed import scann_problem

__all__ = [
    "BASELINES",
    "CUSTOM_OPS",
    "PROTOCOLS",
    "QUERY_TOWERS",
    "ROW_TYPES",
    "SCANN_NAMESPACE",
    "SIMILARITIES",
    "SIMILAR_BY",
    "SPLIT_METHODS",
    "TARGETS",
    "Protocol",
    "QueryTowerKind",
    "SimilarBy",
    "SimilarityName",
    "SplitMethod",
    "installed_indexes",
]

# Servers with known ops: stock TensorFlow Serving for this TensorFlow, and our own.
TARGETS = ("stock-2.20", "embedded")
SCANN_NAMESPACE = "Scann"
# Ops of an index that core TensorFlow does not have.
CUSTOM_OPS: Mapping[str, tuple[str, ...]] = {
    "scann": ("Scann>ScannSearchBatched", "Scann>TensorsToScann")
}
ROW_TYPES = ("auto", "float32", "bfloat16", "int8")


def installed_indexes() -> tuple[str, ...]:
    """Return the indexes that the installed packages can build: all, or all but ScaNN."""
    return tuple(index for index in INDEXES if index != "scann" or scann_problem() is None)


SplitMethod = Literal["random", "leave_last_out", "global_time", "new_users"]
SPLIT_METHODS: tuple[SplitMethod, ...] = (
    "random",
    "leave_last_out",
    "global_time",
    "new_users",
)

Protocol = Literal["seen_kept", "seen_excluded"]
PROTOCOLS: tuple[Protocol, ...] = ("seen_kept", "seen_excluded")

QueryTowerKind = Literal["history", "table"]
QUERY_TOWERS: tuple[QueryTowerKind, ...] = ("history", "table")

SimilarityName = Literal["dot", "cosine", "l2"]
SIMILARITIES: tuple[SimilarityName, ...] = ("dot", "cosine", "l2")

# Names of `evaluation.baselines`.
BASELINES = (
    "popularity",
    "recent_popularity",
    "item_knn",
    "ease",
    "decayed_ease",
    "transitions",
    "ials",
)

SimilarBy = Literal["towers", "co_interactions"]
SIMILAR_BY: tuple[SimilarBy, ...] = ("towers", "co_interactions")
