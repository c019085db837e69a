"""Configuration of indexes and servables, and of whole exports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shortlist.clients.contract import (
    DEFAULT_MODEL,
    DEFAULT_TOP_K,
    INDEXES,
    servable_name,
    shard_name,
)
from shortlist.export.config.checks import require, require_choice, require_leaves, require_positive
from shortlist.export.config.choices import (
    ROW_TYPES,
    SIMILARITIES,
    TARGETS,
    SimilarityName,
    SplitMethod,
    installed_indexes,
)
from shortlist.export.config.training import ModelConfig, TrainConfig
from shortlist.serving.repository.names import check_model_name
from shortlist.serving.repository.version import Shard

__all__ = [
    "BruteForceConfig",
    "ExportConfig",
    "IndexConfig",
    "IvfConfig",
    "OwnConfig",
    "ScannConfig",
    "ServableConfig",
]


@dataclass(frozen=True, kw_only=True)
class BruteForceConfig:
    """Brute force has no parameters."""


@dataclass(frozen=True, kw_only=True)
class ScannConfig:
    """Parameters of ScaNN; unset ones follow ScaNN's own rules for the corpus size.

    Attributes:
        num_leaves: Leaves that the corpus is divided into.
        num_leaves_to_search: Leaves per query; more raises recall@k and latency.
        num_reordering_candidates: Best candidates by rough scores, which are scored in full.
    """

    num_leaves: int | None = None
    num_leaves_to_search: int | None = None
    num_reordering_candidates: int | None = None

    def __post_init__(self) -> None:
        require_positive(
            num_leaves=self.num_leaves,
            num_leaves_to_search=self.num_leaves_to_search,
            num_reordering_candidates=self.num_reordering_candidates,
        )
        require_leaves(self.num_leaves, self.num_leaves_to_search)


@dataclass(frozen=True, kw_only=True)
class IvfConfig:
    """Parameters of the inverted-file index; unset ones follow from the corpus size.

    Attributes:
        num_leaves: Leaves that the corpus is divided into.
        num_leaves_to_search: Leaves per query; more raises recall@k and latency.
        prefilter_dimensions: Directions of the rough scoring; the embedding's length for all.
        num_reordering_candidates: Best candidates by rough scores, which are scored in full.
        row_type: Type of the rows for rough scoring: `float32`, `bfloat16`, `int8` or `auto`,
            which is `bfloat16` from 20,000 candidates if this processor multiplies it. Set it
            if servers have other processors.
        training_iterations: Iterations of k-means, which finds the leaves.
        training_sample: Candidates that each division into branches is trained on.
    """

    num_leaves: int | None = None
    num_leaves_to_search: int | None = None
    prefilter_dimensions: int | None = None
    num_reordering_candidates: int | None = None
    row_type: str = "auto"
    training_iterations: int = 12
    training_sample: int = 32_768

    def __post_init__(self) -> None:
        require_positive(
            num_leaves=self.num_leaves,
            num_leaves_to_search=self.num_leaves_to_search,
            prefilter_dimensions=self.prefilter_dimensions,
            num_reordering_candidates=self.num_reordering_candidates,
            training_iterations=self.training_iterations,
            training_sample=self.training_sample,
        )
        require_leaves(self.num_leaves, self.num_leaves_to_search)
        require_choice("row_type", self.row_type, ROW_TYPES)


IndexConfig = BruteForceConfig | ScannConfig | IvfConfig


@dataclass(frozen=True, kw_only=True)
class ServableConfig:
    """Settings of servables, whatever model they hold.

    Attributes:
        model: Model name; each index is published as `<model>_<index>`.
        indexes: Indexes to publish, names from `shortlist.clients.contract.INDEXES`; unset, all
            that the installed packages can build.
        top_k: Answers per row of `serving_default`, limited by the size of the corpus.
        recall: Recall@10 that every approximate index must reach; measurements choose the
            effort for it. Unset, the configuration decides the effort.
        target: Server that must be able to run every servable; unset, any.
        shards: Number of servables that share the corpus of an index, each with every
            `shards`th candidate, for a corpus that one machine does not hold.
        batching: Support TensorFlow Serving with `--enable_batching`, which fails to load a
            version with a warm-up request of `retrieve` because of its scalar k.
        brute_force: Parameters of brute force.
        scann: Parameters of ScaNN.
        ivf: Parameters of the inverted-file index.
    """

    model: str = DEFAULT_MODEL
    indexes: tuple[str, ...] = field(default_factory=installed_indexes)
    top_k: int = DEFAULT_TOP_K
    recall: float | None = 0.95
    target: str | None = None
    shards: int = 1
    batching: bool = False
    brute_force: BruteForceConfig = field(default_factory=BruteForceConfig)
    scann: ScannConfig = field(default_factory=ScannConfig)
    ivf: IvfConfig = field(default_factory=IvfConfig)

    def __post_init__(self) -> None:
        check_model_name(self.model)
        require(bool(self.indexes), f"indexes must name at least one of {', '.join(INDEXES)}")
        for index in self.indexes:
            require(index in INDEXES, f"unknown index {index!r}; choose from {', '.join(INDEXES)}")
        require(
            len(set(self.indexes)) == len(self.indexes),
            f"indexes must be distinct, got {', '.join(self.indexes)}",
        )
        require_positive(top_k=self.top_k, shards=self.shards)
        for name in self.names():
            check_model_name(name)
        require(
            self.recall is None or 0 < self.recall <= 1,
            f"recall must lie between 0 and 1, got {self.recall}",
        )
        require(
            self.target is None or self.target in TARGETS,
            f"unknown target {self.target!r}; choose from {', '.join(TARGETS)}",
        )

    def parts(self) -> list[Shard | None]:
        """Return the shards of each index; None for a servable of the whole corpus."""
        if self.shards == 1:
            return [None]
        return [Shard(number=number, count=self.shards) for number in range(self.shards)]

    def name(self, index: str, shard: Shard | None = None) -> str:
        """Return the name of the servable of an index, or of its shard."""
        name = servable_name(self.model, index)
        return name if shard is None else shard_name(name, shard.number, shard.count)

    def names(self) -> list[str]:
        """Return the names of all servables, index by index."""
        return [self.name(index, shard) for index in self.indexes for shard in self.parts()]

    def index_config(self, index: str) -> IndexConfig:
        """Return the configuration of one index."""
        configs: dict[str, IndexConfig] = {
            "brute_force": self.brute_force,
            "scann": self.scann,
            "ivf": self.ivf,
        }
        return configs[index]

    def as_json(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {**asdict(self), "indexes": list(self.indexes)}

    @classmethod
    def of_manifest(cls, stored: Mapping[str, Any]) -> "ServableConfig":
        """Return the part of a manifest's configuration that is about indexes and servables."""
        kinds = {"brute_force": BruteForceConfig, "scann": ScannConfig, "ivf": IvfConfig}
        values: dict[str, Any] = {}
        for part in fields(ServableConfig):
            if part.name in kinds:
                values[part.name] = kinds[part.name](**stored.get(part.name, {}))
            elif part.name in stored:
                values[part.name] = stored[part.name]
        return ServableConfig(**{**values, "indexes": tuple(values["indexes"])})


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ServableConfig):
    """All settings that affect what an export publishes, except the data.

    Attributes:
        keep_seen: Store each user's training interactions in servables, for `exclude_seen`.
        training_state: Store the state of the training with servables, for `--warm-start`.
        towers: Shape of the towers.
        train: Training and split.
    """

    keep_seen: bool = True
    training_state: bool = True
    towers: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def as_json(self, *, split: SplitMethod | None = None) -> dict[str, Any]:
        """Return the configuration as JSON values, with the split that was made if it is known."""
        values = super().as_json()
        values["train"]["split"] = split or self.train.split
        tensorboard = values["train"]["tensorboard"]
        values["train"]["tensorboard"] = None if tensorboard is None else str(tensorboard)
        return values


@dataclass(frozen=True, kw_only=True)
class OwnConfig(ServableConfig):
    """Settings of servables for towers that were trained elsewhere.

    Attributes:
        similarity: Measure of a query and a candidate: `dot`, `cosine` or `l2`.
        seed: Random seed of the queries that are drawn for recall and golden answers.
    """

    similarity: SimilarityName = "dot"
    seed: int = 42

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("similarity", self.similarity, SIMILARITIES)
