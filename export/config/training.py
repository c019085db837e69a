"""Configuration of the towers and their training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortlist.export.config.checks import (
    require,
    require_choice,
    require_not_negative,
    require_positive,
)
from shortlist.export.config.choices import (
    PROTOCOLS,
    QUERY_TOWERS,
    SIMILAR_BY,
    SPLIT_METHODS,
    Protocol,
    QueryTowerKind,
    SimilarBy,
    SplitMethod,
)

__all__ = [
    "PRESETS",
    "ModelConfig",
    "TrainConfig",
]


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
        require_positive(embedding_dim=self.embedding_dim, temperature=self.temperature)
        require_not_negative(
            inner_product_weight=self.inner_product_weight,
            linear_dimension=self.linear_dimension,
            order_dimension=self.order_dimension,
        )
        require_choice("query_tower", self.query_tower, QUERY_TOWERS)


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
        require_positive(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            sampled_candidates=self.sampled_candidates,
            patience=self.patience,
        )
        require_not_negative(
            norm_penalty=self.norm_penalty,
            seen_last_epochs=self.seen_last_epochs,
            rating_weight=self.rating_weight,
            retrieval_weight=self.retrieval_weight,
        )
        require_choice("loss", self.loss, ("user_softmax", "in_batch_softmax"))
        require_choice("optimizer", self.optimizer, ("adam", "adagrad"))
        if self.split is not None:
            require_choice("split", self.split, SPLIT_METHODS)
        require_choice("protocol", self.protocol, PROTOCOLS)
        require_choice("similar", self.similar, SIMILAR_BY)
        require(
            0 < self.held_out_fraction < 1,
            f"held_out_fraction must lie between 0 and 1, got {self.held_out_fraction}",
        )
        require(
            0 <= self.validation_fraction < 1,
            f"validation_fraction must lie in 0..1, got {self.validation_fraction}",
        )
        require(0 <= self.seed < 2**32, f"seed must lie in 0..2**32-1, got {self.seed}")
        require(
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
