"""Configuration of an export, checked on creation and written into every manifest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from shortlist.clients.contract import (
    DEFAULT_MODEL,
    DEFAULT_TOP_K,
    INDEXES,
    servable_name,
    shard_name,
)
from shortlist.serving.installed import scann_problem
from shortlist.serving.repository.names import check_model_name
from shortlist.serving.repository.version import Shard

__all__ = [
    "BASELINES",
    "CUSTOM_OPS",
    "PRESETS",
    "PROTOCOLS",
    "QUERY_TOWERS",
    "SCANN_NAMESPACE",
    "SIMILARITIES",
    "SIMILAR_BY",
    "SPLIT_METHODS",
    "TARGETS",
    "BruteForceConfig",
    "ExportConfig",
    "IndexConfig",
    "IvfConfig",
    "ModelConfig",
    "OwnConfig",
    "Protocol",
    "QueryTowerKind",
    "ScannConfig",
    "ServableConfig",
    "SimilarBy",
    "SimilarityName",
    "SplitMethod",
    "TrainConfig",
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


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None:
            _require(value > 0, f"{name} must be positive, got {value}")


def _require_not_negative(**values: float) -> None:
    for name, value in values.items():
        _require(value >= 0 and math.isfinite(value), f"{name} must not be negative, got {value}")


def _require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    _require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _require_leaves(num_leaves: int | None, num_leaves_to_search: int | None) -> None:
    if num_leaves is not None and num_leaves_to_search is not None:
        _require(
            num_leaves_to_search <= num_leaves,
            "num_leaves_to_search must be at most num_leaves, got "
            f"{num_leaves_to_search} > {num_leaves}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the two towers.

    Attributes:
        embedding_dim: Length of an embedding.
        temperature: Temperature of the cosine logits of `user_softmax`. Lower values memorise
            more: better with seen candidates excluded, worse with them kept.
        inner_product_weight: Weight of a second pair of towers of `user_softmax`, which takes
            half of the dimensions and learns separately. Its logits, plain inner products, are
            added to the cosines. 0 for cosines alone.
        candidate_features: Use attributes of candidates in addition to their ids.
        query_tower: `history` computes queries from a user's events, in their order if the data
            has times; `table` learns one query per user, which a request's events only shift.
        linear_dimension: Dimensions of a closed-form model between candidates, for small
            corpora with `query_tower` `history`; 0 for none.
        order_dimension: Dimensions of a causal transformer over a user's last events, for data
            with times and `query_tower` `history`; 0 for none.
    """

    embedding_dim: int = 256
    temperature: float = 0.17
    inner_product_weight: float = 0.5
    candidate_features: bool = True
    query_tower: QueryTowerKind = "history"
    linear_dimension: int = 256
    order_dimension: int = 128

    def __post_init__(self) -> None:
        _require_positive(embedding_dim=self.embedding_dim, temperature=self.temperature)
        _require_not_negative(
            inner_product_weight=self.inner_product_weight,
            linear_dimension=self.linear_dimension,
            order_dimension=self.order_dimension,
        )
        _require_choice("query_tower", self.query_tower, QUERY_TOWERS)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the towers, and the split that evaluates them.

    Attributes:
        loss: `user_softmax` compares all interactions of a user with the corpus, or with a
            sample if it is too large; `in_batch_softmax` is TFRS's retrieval task.
        optimizer: `adam` or `adagrad`.
        epochs: Maximum passes over the training part; early stopping needs a validation part.
        batch_size: Users per step with `user_softmax`, otherwise interactions.
        learning_rate: Learning rate of the optimizer.
        activity_power: Power of a user's number of interactions that weighs the user: 1 weighs
            all interactions equally, 0 all users.
        norm_penalty: Weight of the squared lengths of the inner-product embeddings.
        seen_last_epochs: Passes of a second stage that teaches the towers to rank seen
            candidates last, for lists shown without `exclude_seen`; 0 for none.
        sampled_candidates: Negatives per batch; unset, the whole corpus if it fits into memory.
        split: Method of holding out: `random`, `leave_last_out`, `global_time` or `new_users`.
            Unset, `leave_last_out` if the times order the interactions of at least 100 users, and
            of half of those with three or more interactions; otherwise `random`.
        protocol: How applications will ask: `seen_excluded` without the candidates that the user
            already has, `seen_kept` with them. The headline metric and the gate `quality` use it.
        held_out_fraction: Share of the interactions, or with `new_users` of the users, that
            evaluates the model.
        validation_fraction: Share of the rest that stops training; 0 for no early stopping.
        patience: Validations without improvement before training stops.
        seed: Random seed for the split, initial values and order.
        rating_weight: Weight of the rating loss; above 0, a head predicts ratings.
            `in_batch_softmax` trains it with the towers, `user_softmax` fits it to the finished
            towers, for any weight.
        retrieval_weight: Weight of the retrieval loss next to the rating loss.
        similar: Method of the signature `similar`: `towers` for near candidate embeddings,
            `co_interactions` for queries that learn which candidates users have in common.
        tensorboard: Folder for TensorBoard's event files; unset, none are written.
    """

    loss: Literal["user_softmax", "in_batch_softmax"] = "user_softmax"
    optimizer: Literal["adam", "adagrad"] = "adam"
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 0.01
    activity_power: float = 0.5
    norm_penalty: float = 0.15
    seen_last_epochs: int = 0
    sampled_candidates: int | None = None
    split: SplitMethod | None = None
    protocol: Protocol = "seen_excluded"
    held_out_fraction: float = 0.2
    validation_fraction: float = 0.1
    patience: int = 3
    seed: int = 42
    rating_weight: float = 0.0
    retrieval_weight: float = 1.0
    similar: SimilarBy = "towers"
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        _require_positive(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            sampled_candidates=self.sampled_candidates,
            patience=self.patience,
        )
        _require_not_negative(
            norm_penalty=self.norm_penalty,
            seen_last_epochs=self.seen_last_epochs,
            rating_weight=self.rating_weight,
            retrieval_weight=self.retrieval_weight,
        )
        _require_choice("loss", self.loss, ("user_softmax", "in_batch_softmax"))
        _require_choice("optimizer", self.optimizer, ("adam", "adagrad"))
        if self.split is not None:
            _require_choice("split", self.split, SPLIT_METHODS)
        _require_choice("protocol", self.protocol, PROTOCOLS)
        _require_choice("similar", self.similar, SIMILAR_BY)
        _require(
            0 < self.held_out_fraction < 1,
            f"held_out_fraction must lie between 0 and 1, got {self.held_out_fraction}",
        )
        _require(
            0 <= self.validation_fraction < 1,
            f"validation_fraction must lie in 0..1, got {self.validation_fraction}",
        )
        _require(0 <= self.seed < 2**32, f"seed must lie in 0..2**32-1, got {self.seed}")
        _require(
            self.retrieval_weight == 1.0
            or (self.loss == "in_batch_softmax" and self.rating_weight > 0),
            "retrieval_weight has an effect only with in_batch_softmax and a rating_weight "
            f"above 0; leave it at 1, got {self.retrieval_weight}",
        )


# Recipes by name. `tutorial`, `overview` and `multitask` come from TFRS's basic retrieval
# tutorial, its overview and its multitask tutorial, for comparison.
PRESETS: Mapping[str, tuple[ModelConfig, TrainConfig]] = {
    "default": (ModelConfig(), TrainConfig()),
    "table": (ModelConfig(query_tower="table"), TrainConfig(split="random")),
    "seen_kept": (
        ModelConfig(query_tower="table"),
        TrainConfig(seen_last_epochs=60, split="random", protocol="seen_kept"),
    ),
    "tutorial": (
        ModelConfig(embedding_dim=32, candidate_features=False, query_tower="table"),
        TrainConfig(
            loss="in_batch_softmax",
            optimizer="adagrad",
            epochs=3,
            batch_size=8192,
            learning_rate=0.1,
            split="random",
            validation_fraction=0.0,
        ),
    ),
    "overview": (
        ModelConfig(embedding_dim=64, candidate_features=False, query_tower="table"),
        TrainConfig(
            loss="in_batch_softmax",
            optimizer="adagrad",
            epochs=3,
            batch_size=4096,
            learning_rate=0.5,
            split="random",
            validation_fraction=0.0,
        ),
    ),
    "multitask": (
        ModelConfig(embedding_dim=64, candidate_features=False, query_tower="table"),
        TrainConfig(
            loss="in_batch_softmax",
            optimizer="adagrad",
            epochs=3,
            batch_size=8192,
            learning_rate=0.1,
            split="random",
            validation_fraction=0.0,
            rating_weight=1.0,
        ),
    ),
}


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
        _require_positive(
            num_leaves=self.num_leaves,
            num_leaves_to_search=self.num_leaves_to_search,
            num_reordering_candidates=self.num_reordering_candidates,
        )
        _require_leaves(self.num_leaves, self.num_leaves_to_search)


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
        _require_positive(
            num_leaves=self.num_leaves,
            num_leaves_to_search=self.num_leaves_to_search,
            prefilter_dimensions=self.prefilter_dimensions,
            num_reordering_candidates=self.num_reordering_candidates,
            training_iterations=self.training_iterations,
            training_sample=self.training_sample,
        )
        _require_leaves(self.num_leaves, self.num_leaves_to_search)
        _require_choice("row_type", self.row_type, ROW_TYPES)


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
        _require(bool(self.indexes), f"indexes must name at least one of {', '.join(INDEXES)}")
        for index in self.indexes:
            _require(index in INDEXES, f"unknown index {index!r}; choose from {', '.join(INDEXES)}")
        _require(
            len(set(self.indexes)) == len(self.indexes),
            f"indexes must be distinct, got {', '.join(self.indexes)}",
        )
        _require_positive(top_k=self.top_k, shards=self.shards)
        for name in self.names():
            check_model_name(name)
        _require(
            self.recall is None or 0 < self.recall <= 1,
            f"recall must lie between 0 and 1, got {self.recall}",
        )
        _require(
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


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ServableConfig):
    """All settings that affect what an export publishes, except the data.

    Attributes:
        keep_seen: Store each user's training interactions in servables, for `exclude_seen`.
        towers: Shape of the towers.
        train: Training and split.
    """

    keep_seen: bool = True
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
        _require_choice("similarity", self.similarity, SIMILARITIES)
