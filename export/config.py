"""Configuration of an export: checked when made, written into every manifest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from shortlist.clients.contract import DEFAULT_MODEL, DEFAULT_TOP_K, INDEXES

__all__ = [
    "PRESETS",
    "SIMILAR_BY",
    "SPLIT_METHODS",
    "TARGETS",
    "BruteForceConfig",
    "ExportConfig",
    "IndexConfig",
    "IvfConfig",
    "ModelConfig",
    "ScannConfig",
    "SimilarBy",
    "SplitMethod",
    "TrainConfig",
]


# Servers whose ops are known: the stock TensorFlow Serving of this TensorFlow, and our own.
TARGETS = ("stock-2.20", "embedded")
ROW_TYPES = ("auto", "float32", "bfloat16", "int8")


SplitMethod = Literal["random", "leave_last_out", "global_time"]
SPLIT_METHODS: tuple[SplitMethod, ...] = ("random", "leave_last_out", "global_time")

SimilarBy = Literal["towers", "co_interactions"]
SIMILAR_BY: tuple[SimilarBy, ...] = ("towers", "co_interactions")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None:
            _require(value > 0, f"{name} must be positive, got {value}")


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
        temperature: With `user_softmax`, of the logits that are cosines. Lower values memorise
            more: better with seen candidates excluded, worse with them kept.
        inner_product_weight: With `user_softmax`, half of the dimensions are a second pair of
            towers, whose logits are plain inner products; both pairs learn apart, and these
            logits times this are added to the cosines'. 0 for cosines alone.
        candidate_features: Whether candidates have their attributes beside their ids.
    """

    embedding_dim: int = 256
    temperature: float = 0.17
    inner_product_weight: float = 0.5
    candidate_features: bool = True

    def __post_init__(self) -> None:
        _require_positive(embedding_dim=self.embedding_dim, temperature=self.temperature)
        _require(
            self.inner_product_weight >= 0,
            f"inner_product_weight must be >= 0, got {self.inner_product_weight}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the towers are trained, and what is held out to judge them.

    Attributes:
        loss: `user_softmax`: all interactions of a user at once against the corpus, or against
            a sample of it where it is too large; `in_batch_softmax`: TFRS's retrieval task.
        optimizer: `adam` or `adagrad`.
        epochs: Passes over the training part, at most; early stopping needs a validation part.
        batch_size: Users per step with `user_softmax`, else interactions.
        learning_rate: Of the optimizer.
        activity_power: A user with n interactions counts n to this power: 1 weighs
            interactions alike, 0 users.
        norm_penalty: Weight of the squared lengths of the inner products' embeddings.
        seen_last_epochs: Passes of a second stage, in which the towers learn to rank last what
            a user already has: for lists that are shown without `exclude_seen`; 0 for none.
        sampled_candidates: Negatives per batch; unset, the corpus where it fits into memory.
        split: How interactions are held out: `random`, `leave_last_out` or `global_time`.
        held_out_fraction: Share of the interactions that judges the model.
        validation_fraction: Share of the rest that stops training; 0 for no early stopping.
        patience: Looks at the validation part without a better one before training stops.
        seed: Of the split, the initial values and the order.
        rating_weight: Above 0, a head predicts ratings. `in_batch_softmax` trains it with the
            towers, each loss times its weight; `user_softmax` fits it to the finished towers,
            whatever the weight.
        retrieval_weight: Of the retrieval loss, beside that.
        similar: What `similar` goes by: `towers`, near candidate embeddings; `co_interactions`,
            what users have beside a candidate, by queries learned for that.
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
    split: SplitMethod = "random"
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
        _require(self.norm_penalty >= 0, f"norm_penalty must be >= 0, got {self.norm_penalty}")
        _require(
            self.seen_last_epochs >= 0,
            f"seen_last_epochs must be >= 0, got {self.seen_last_epochs}",
        )
        _require_choice("loss", self.loss, ("user_softmax", "in_batch_softmax"))
        _require_choice("optimizer", self.optimizer, ("adam", "adagrad"))
        _require_choice("split", self.split, SPLIT_METHODS)
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
        for name in ("rating_weight", "retrieval_weight"):
            value = getattr(self, name)
            _require(
                value >= 0 and math.isfinite(value), f"{name} must not be negative, got {value}"
            )
        _require(
            self.retrieval_weight == 1.0
            or (self.loss == "in_batch_softmax" and self.rating_weight > 0),
            "retrieval_weight weighs in_batch_softmax against a rating_weight above 0; "
            f"leave it at 1, got {self.retrieval_weight}",
        )


# Recipes by name. `tutorial`, `overview` and `multitask` are those of TFRS's basic retrieval
# tutorial, of its overview and of its multitask tutorial, kept to compare with.
PRESETS: Mapping[str, tuple[ModelConfig, TrainConfig]] = {
    "default": (ModelConfig(), TrainConfig()),
    "seen_kept": (ModelConfig(), TrainConfig(seen_last_epochs=60)),
    "tutorial": (
        ModelConfig(embedding_dim=32, candidate_features=False),
        TrainConfig(
            loss="in_batch_softmax",
            optimizer="adagrad",
            epochs=3,
            batch_size=8192,
            learning_rate=0.1,
            validation_fraction=0.0,
        ),
    ),
    "overview": (
        ModelConfig(embedding_dim=64, candidate_features=False),
        TrainConfig(
            loss="in_batch_softmax",
            optimizer="adagrad",
            epochs=3,
            batch_size=4096,
            learning_rate=0.5,
            validation_fraction=0.0,
        ),
    ),
    "multitask": (
        ModelConfig(embedding_dim=64, candidate_features=False),
        TrainConfig(
            loss="in_batch_softmax",
            optimizer="adagrad",
            epochs=3,
            batch_size=8192,
            learning_rate=0.1,
            validation_fraction=0.0,
            rating_weight=1.0,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class BruteForceConfig:
    """Brute force has nothing to choose."""


@dataclass(frozen=True, kw_only=True)
class ScannConfig:
    """ScaNN's parameters; unset, a choice is left to ScaNN's own rules for the corpus size.

    Attributes:
        num_leaves: Leaves that the corpus is divided into.
        num_leaves_to_search: Leaves per query; more raises recall@k and latency.
        num_reordering_candidates: Best of the first scoring, which are scored in full.
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
    """The inverted-file index's parameters; unset, a choice is left to the corpus size.

    Attributes:
        num_leaves: Leaves that the corpus is divided into.
        num_leaves_to_search: Leaves per query; more raises recall@k and latency.
        prefilter_dimensions: Directions of the first scoring; the embedding's length for all.
        num_reordering_candidates: Best of the first scoring, which are scored in full.
        row_type: Of the first scoring: `float32`, `bfloat16`, `int8`, or `auto`: `bfloat16`
            for 20,000 candidates or more where this processor multiplies it. Set it where
            servers have other processors.
        training_iterations: Of k-means, which finds the leaves.
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
        _require(
            self.row_type in ROW_TYPES,
            f"row_type must be one of {', '.join(ROW_TYPES)}, got {self.row_type!r}",
        )


IndexConfig = BruteForceConfig | ScannConfig | IvfConfig


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Everything that decides what an export publishes, but for the data.

    Attributes:
        model: Model name; each index is published as `<model>_<index>`.
        indexes: Which servables to publish, names from `shortlist.clients.contract.INDEXES`.
        top_k: Answers per row of `serving_default`; at most the corpus is returned.
        recall: Recall@10 that every approximate index must reach; its effort is chosen for
            it by measuring. Unset, the effort is what its configuration says.
        target: Server that must be able to run every servable; unset, any.
        keep_seen: Whether servables know what each user had in training, for `exclude_seen`.
        batching: Whether TensorFlow Serving can load them with `--enable_batching`: there a
            warm-up request of `retrieve`, with its scalar k, would fail the load.
        towers: See `ModelConfig`.
        train: See `TrainConfig`.
        brute_force: See `BruteForceConfig`.
        scann: See `ScannConfig`.
        ivf: See `IvfConfig`.
    """

    model: str = DEFAULT_MODEL
    indexes: tuple[str, ...] = INDEXES
    top_k: int = DEFAULT_TOP_K
    recall: float | None = 0.95
    target: str | None = None
    keep_seen: bool = True
    batching: bool = False
    towers: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    brute_force: BruteForceConfig = field(default_factory=BruteForceConfig)
    scann: ScannConfig = field(default_factory=ScannConfig)
    ivf: IvfConfig = field(default_factory=IvfConfig)

    def __post_init__(self) -> None:
        _require(bool(self.model), "model must not be empty")
        _require(bool(self.indexes), f"indexes must name at least one of {', '.join(INDEXES)}")
        for index in self.indexes:
            _require(index in INDEXES, f"unknown index {index!r}; choose from {', '.join(INDEXES)}")
        _require(
            len(set(self.indexes)) == len(self.indexes),
            f"indexes must be distinct, got {', '.join(self.indexes)}",
        )
        _require_positive(top_k=self.top_k)
        _require(
            self.recall is None or 0 < self.recall <= 1,
            f"recall must lie between 0 and 1, got {self.recall}",
        )
        _require(
            self.target is None or self.target in TARGETS,
            f"unknown target {self.target!r}; choose from {', '.join(TARGETS)}",
        )

    def index_config(self, index: str) -> IndexConfig:
        """Configuration of one index."""
        configs: dict[str, IndexConfig] = {
            "brute_force": self.brute_force,
            "scann": self.scann,
            "ivf": self.ivf,
        }
        return configs[index]

    def as_json(self) -> dict[str, Any]:
        """The configuration in values that JSON knows."""
        values = asdict(self)
        tensorboard = values["train"]["tensorboard"]
        values["train"]["tensorboard"] = None if tensorboard is None else str(tensorboard)
        values["indexes"] = list(self.indexes)
        return values
