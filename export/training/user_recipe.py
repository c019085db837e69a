"""The default recipe: taste, learned from users and windows of their events, then order.

With a validation part, a first training without it finds the number of epochs and how the parts
of a query are put together; the final model is trained on both parts.

A training can start from the state that an earlier one has left in its version. The state is that
of the first training, so the validation part still judges. It is trained a little more on the
grown training part, then, for the final model, on both parts. The settings stay.
"""

import dataclasses
import gc
import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split
from shortlist.export.progress import Progress
from shortlist.export.towers.trained import EpochRecord, TrainedModel
from shortlist.export.training.checkpoint import (
    Checkpoint,
    Saved,
    read_arrays,
    write_arrays,
)
from shortlist.export.training.order import order_epochs, train_order
from shortlist.export.training.query.assembly import Learned, Order, QuerySettings, assemble
from shortlist.export.training.query.choice import (
    Choice,
    choose_feature_share,
    choose_settings,
)
from shortlist.export.training.query.feature_queries import FeatureRows
from shortlist.export.training.query.linear import Linear
from shortlist.export.training.query.taste import Taste
from shortlist.export.training.query.validation import Validation
from shortlist.export.training.query.windows import WINDOW, with_windows
from shortlist.export.training.seen_last import SeenLastModel
from shortlist.export.training.states.state import State
from shortlist.export.training.states.warm_start import TASTE_PART, WarmStart
from shortlist.export.training.unknown_user import choose_half_life
from shortlist.export.training.user_scores import UserHistories
from shortlist.export.training.user_softmax import pair_dimensions
from shortlist.export.training.user_training import UserSteps, rescale
from shortlist.export.training.workers import Workers

__all__ = ["score_on_users", "train_on_users"]

log = logging.getLogger(__name__)

Table = npt.NDArray[np.float32]

_MOST_WINDOWED = 5_000_000  # events; with more, windows cost more than they bring
_LARGEST_BATCH = 4  # times the configured one, for windows, which are more but smaller rows
_STEPS_BETWEEN_LOOKS = 25  # an epoch of a small data set is too short to validate after each
# From a state: divisors of the epochs of a training from scratch, and of the steps between two
# validations; and validations without improvement before training stops.
_CARRIED_EPOCHS, _CARRIED_LOOKS = 6, 2
_CARRIED_PATIENCE = 1
# Batches per epoch from which the learning rate falls, with the root of their number: on
# MovieLens 1M, with ten times as many, a third of the rate is better by 5 %.
_BATCHES_AT_FULL_RATE = 5
# Names of phases in progress and checkpoints, in their order.
_SEARCH = "search"  # for the number of epochs
_SEARCH_ORDER = "search, order"
_FIT = "fit"  # the final model
_SEEN_LAST = "seen last"  # its second stage, if configured
_FIT_ORDER = "fit, order"
# Methods of a split that ask for the next event. The others ask for any other ones, and there the
# order's scores only cost: on MovieLens latest-small their weight was chosen to be 0.
_ASK_WHAT_IS_NEXT = ("leave_last_out", "global_time")
_STORED = 3  # arrays of a taste, at the end of the checkpoints of the order's phases


def train_on_users(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
    *,
    warm_start: WarmStart | None = None,
    state: Path | None = None,
    steps_between_looks: int = _STEPS_BETWEEN_LOOKS,
) -> TrainedModel:
    """Train a model on the fitted part; see `train`.

    `steps_between_looks` is the number of training steps between two validations, rounded to
    whole epochs.
    """
    recipe = _Recipe(
        dataset=dataset,
        split=split,
        model_config=model_config,
        config=config,
        progress=progress,
        checkpoint=checkpoint,
        workers=workers,
        warm_start=warm_start,
        state=state,
        steps_between_looks=steps_between_looks,
    )
    saved = checkpoint.restored() if checkpoint is not None else None
    if saved is not None and saved.phase not in (_SEARCH, _SEARCH_ORDER):
        found = _Found.from_json(saved.carried)
    elif len(split.validation):
        found = recipe.search(saved)
        gc.collect()  # frees the tables and their moments before the next ones are allocated
    else:
        found = recipe.unsearched()
    return recipe.fit(found, saved)


def score_on_users(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
) -> float:
    """Train on the training part alone; see `validation_score`."""
    recipe = _Recipe(
        dataset=dataset,
        split=split,
        model_config=model_config,
        config=config,
        progress=progress,
        checkpoint=None,
        workers=None,
        steps_between_looks=_STEPS_BETWEEN_LOOKS,
    )
    score = recipe.search(None).score
    assert score is not None
    return score


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a search has found: epochs, their records, and the settings of the query tower.

    `score` is that of the validation part; None without a search.
    """

    epochs: int
    records: list[EpochRecord]
    settings: QuerySettings
    score: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "_Found":
        return cls(
            epochs=values["epochs"],
            records=[EpochRecord(**record) for record in values["records"]],
            settings=QuerySettings(**values["settings"]),
            score=values.get("score"),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Recipe:
    """The arguments of `train_on_users`, with the steps of both trainings."""

    dataset: Dataset
    split: Split
    model_config: ModelConfig
    config: TrainConfig
    progress: Progress
    checkpoint: Checkpoint | None
    workers: Workers | None
    warm_start: WarmStart | None = None
    state: Path | None = None
    steps_between_looks: int

    @property
    def ordered(self) -> bool:
        """Whether to learn from the order of events."""
        return self.model_config.query_tower == "history" and self.dataset.timestamps is not None

    def unsearched(self) -> _Found:
        """Epochs and settings without a search."""
        return _Found(epochs=self._most_epochs, records=[], settings=self.usual_settings())

    @property
    def _most_epochs(self) -> int:
        epochs = self.config.epochs
        return epochs if self.warm_start is None else max(1, epochs // _CARRIED_EPOCHS)

    def usual_settings(self) -> QuerySettings:
        """Settings without a search."""
        if self.warm_start is not None:
            return QuerySettings(**self.warm_start.settings)
        if self.model_config.query_tower == "table":
            return QuerySettings(user_share=1.0)
        if self.ordered:
            return QuerySettings(decay=0.9, linear_weight=0.3, order_weight=1.0)
        return QuerySettings(linear_weight=0.3)

    def search(self, saved: Saved | None) -> _Found:
        """Train on the training part alone, and judge by the validation part."""
        kept = Histories.of_users(self.dataset, self.split.training)
        validation = Validation.of_split(self.dataset, self.split, kept, seed=self.config.seed)
        if saved is not None and saved.phase == _SEARCH_ORDER:
            records = [EpochRecord(**record) for record in saved.carried["records"]]
            taste = Taste(*saved.arrays[-_STORED:])
        else:
            records, taste = self._search_taste(kept, validation, saved)
        looks = [record for record in records if record.validation is not None]
        epochs = max(looks, key=lambda record: record.validation or 0.0).epoch
        log.info("best NDCG@100 on the validation part after %d epochs", epochs)
        if self.warm_start is not None:
            return _Found(epochs=epochs, records=records, settings=self.usual_settings())
        choice = self._choose(kept, taste, validation, records, saved)
        settings = choice.settings
        if self.ordered:
            judged = self.dataset.candidate_positions[self.split.validation]
            half_life = choose_half_life(kept, judged)
            settings = replace(settings, popularity_half_life_days=half_life)
        return _Found(epochs=epochs, records=records, settings=settings, score=choice.score)

    def _choose(
        self,
        kept: Histories,
        taste: Taste,
        validation: Validation,
        records: list[EpochRecord],
        saved: Saved | None,
    ) -> Choice:
        """Put a query together from its parts as the validation part likes it best."""
        if self.model_config.query_tower == "table":
            settings = self.usual_settings()
            queries = validation.taste_queries(
                taste, decay=settings.decay, user_share=settings.user_share
            )
            return Choice(settings=settings, score=validation.score(queries, taste.candidates))
        carried = {"records": [asdict(record) for record in records]}
        learned = Learned(
            taste=taste,
            linear=self._linear(kept),
            order=self._order(kept, taste, _SEARCH_ORDER, carried, saved),
        )
        choice = choose_settings(learned, validation, kept, ordered=self.ordered)
        rows = self._feature_rows(self.split.training)
        if rows is None:
            return choice
        return choose_feature_share(learned, choice, validation, kept, rows, self.dataset)

    def fit(self, found: _Found, saved: Saved | None) -> TrainedModel:
        """Train the final model on all fitted interactions."""
        kept = Histories.of_users(self.dataset, self.split.fitted)
        carried, records = found.as_json(), found.records
        if saved is not None and saved.phase == _FIT_ORDER:
            taste = Taste(*saved.arrays[-_STORED:])
        else:
            fitted, taste = self._fit_taste(kept, found.epochs, carried, saved)
            records = records or fitted
        carried["records"] = [asdict(record) for record in records]
        settings = found.settings
        learned = Learned(
            taste=taste,
            linear=self._linear(kept) if settings.linear_weight else None,
            order=(
                self._order(kept, taste, _FIT_ORDER, carried, saved)
                if settings.order_weight
                else None
            ),
        )
        takes_features = settings.feature_share is not None
        return assemble(
            learned,
            settings,
            self.dataset,
            kept,
            self._feature_rows(self.split.fitted) if takes_features else None,
            epochs=found.epochs,
            records=records,
        )

    def _feature_rows(self, part: npt.NDArray[np.int64]) -> FeatureRows | None:
        """Return a part of the interactions by their features; None if they have none."""
        if not self.dataset.user_attributes and not self.dataset.context:
            return None
        return FeatureRows.of_dataset(self.dataset, part, seed=self.config.seed)

    def _rows(self, kept: Histories) -> Pairs:
        """Rows to train the taste on: users, and windows if the order is known."""
        if self.ordered and len(kept.events.columns) <= _MOST_WINDOWED:
            return with_windows(kept.events, WINDOW)
        return kept.events

    def _state(self, *, search: bool) -> State:
        """Return the state of the taste that a phase starts from, and the one that it leaves."""
        searched = len(self.split.validation) > 0
        leaves = self.state is not None and search == searched
        start = None
        if self.warm_start is not None:
            start = self.warm_start.folder if search or not searched else self.state
        # What is resumed after its search has the values in the checkpoint.
        if start is not None and not (start / TASTE_PART).is_file():
            start = None
        return State(
            start=None if start is None else start / TASTE_PART,
            leave=self.state / TASTE_PART if leaves and self.state is not None else None,
        )

    def _steps(self, rows: Pairs, state: State) -> UserSteps:
        """Return the steps of a taste, with a batch size and a rate that suit the rows."""
        active, size = int(np.count_nonzero(rows.counts)), self.config.batch_size
        if self.ordered:
            size = min(max(size, active // _BATCHES_AT_FULL_RATE), size * _LARGEST_BATCH)
        share = min(1.0, math.sqrt(_BATCHES_AT_FULL_RATE / math.ceil(active / size)))
        config = dataclasses.replace(
            self.config,
            batch_size=size,
            learning_rate=self.config.learning_rate * share,
            patience=self.config.patience if self.warm_start is None else _CARRIED_PATIENCE,
        )
        steps = UserSteps.of_data(self.dataset, rows, self.model_config, config, self.workers)
        if state.start is not None:
            steps.carry(state, self.dataset)
        return steps

    def _taste(self, steps: UserSteps) -> Taste:
        """Return what a model has learned so far."""
        queries, candidates = steps.model.query_embeddings(), steps.model.candidate_embeddings()
        rescale(queries, candidates, pair_dimensions(self.model_config)[0])
        return Taste.of_rows(
            queries, candidates, steps.histories.pairs, num_users=len(self.dataset.user_ids)
        )

    def _search_taste(
        self, kept: Histories, validation: Validation, saved: Saved | None
    ) -> tuple[list[EpochRecord], Taste]:
        """Train with early stopping; return the records, and the taste of the best epoch.

        A file holds the best values, because memory holds the current ones and their moments.
        """
        state = self._state(search=True)
        steps, highest = self._steps(self._rows(kept), state), -1.0
        trained = steps.variables() if state.leave else steps.model.trainable_variables
        with tempfile.TemporaryFile(prefix="shortlist-") as best:
            if saved is not None and (stored := saved.arrays[len(steps.variables()) :]):
                write_arrays(best, stored)
                highest = saved.loop["best"]
            loop = steps.loop(
                self.progress, _SEARCH, self.checkpoint, stored=lambda: read_arrays(best)
            )

            def validate() -> float:
                nonlocal highest
                value = validation.best_ndcg(self._taste(steps), self._ways())
                if value > highest:
                    highest = value
                    write_arrays(best, (variable.numpy() for variable in trained))
                return value

            looks = 1 if self.warm_start is None else _CARRIED_LOOKS
            records = loop.run(
                self._most_epochs,
                saved=saved,
                validate=validate,
                epochs_between_looks=max(1, round(self.steps_between_looks / looks / loop.batches)),
            )
            for variable, value in zip(trained, read_arrays(best), strict=True):
                variable.assign(value)
        steps.save(state, self.dataset)
        return records, self._taste(steps)

    def _ways(self) -> list[tuple[float, float]]:
        """Decays and shares of the users' learned queries that a look tries."""
        if self.model_config.query_tower == "table":
            return [(1.0, 1.0)]
        return [(1.0, 0.0), (1.0, 1.0), *([(0.8, 0.0)] if self.ordered else [])]

    def _fit_taste(
        self, kept: Histories, epochs: int, carried: Mapping[str, Any], saved: Saved | None
    ) -> tuple[list[EpochRecord], Taste]:
        rows, fitted = self._rows(kept), list[EpochRecord]()
        if saved is not None and saved.phase == _SEEN_LAST:
            dimensions = self.model_config.embedding_dim
            users = np.zeros([rows.num_rows, dimensions], np.float32)
            candidates = np.zeros([kept.num_candidates, dimensions], np.float32)
            histories = UserHistories(rows, kept.num_candidates)
        else:
            state = self._state(search=False)
            final = self._steps(rows, state)
            loop = final.loop(self.progress, _FIT, self.checkpoint, carried)
            fitted, histories = loop.run(epochs, saved=saved), final.histories
            final.save(state, self.dataset)
            if not self.config.seen_last_epochs:
                return fitted, self._taste(final)
            users, candidates = final.model.query_embeddings(), final.model.candidate_embeddings()
            del final, loop
            gc.collect()
        make = partial(SeenLastModel, histories, users, candidates, self.config)
        second = UserSteps(make, histories, self.config, self.workers)
        loop = second.loop(
            self.progress,
            _SEEN_LAST,
            self.checkpoint,
            {**carried, "records": carried["records"] or [asdict(record) for record in fitted]},
        )
        loop.run(self.config.seen_last_epochs, saved=saved)
        return fitted, self._taste(second)

    def _linear(self, kept: Histories) -> Linear | None:
        dimension = self.model_config.linear_dimension
        if not dimension or self.model_config.query_tower == "table":
            return None
        return Linear.fit(self._rows(kept), num_candidates=kept.num_candidates, dimension=dimension)

    def _order(
        self,
        kept: Histories,
        taste: Taste,
        phase: str,
        carried: Mapping[str, Any],
        saved: Saved | None,
    ) -> Order | None:
        dimension = self.model_config.order_dimension
        if not (dimension and self.ordered and self.split.method in _ASK_WHAT_IS_NEXT):
            return None
        if kept.events.counts.max(initial=0) < 2:
            return None
        tower, candidates = train_order(
            kept,
            taste.candidates,
            self.config,
            dimension=dimension,
            epochs=order_epochs(len(kept.events.columns)),
            progress=self.progress,
            phase=phase,
            checkpoint=self.checkpoint,
            carried=carried,
            stored=taste.arrays,
            saved=saved,
            workers=self.workers,
        )
        gc.collect()  # the same for those of the order
        return Order(tower=tower, candidates=candidates)
