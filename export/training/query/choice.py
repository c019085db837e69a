"""Chooses how the parts of a query are put together, by the validation part."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.towers.order_part import OrderPart
from shortlist.export.towers.trained import embed_part
from shortlist.export.training.query.assembly import Learned, QuerySettings
from shortlist.export.training.query.feature_queries import FeatureRows, fit_feature_queries
from shortlist.export.training.query.validation import Validation

__all__ = ["Choice", "choose_feature_share", "choose_settings"]

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

_DECAYS = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_USER_SHARES = (0.5, 1.0)
_LINEAR_WEIGHT = 0.3  # 0.2 and 0.4 differed by chance only
_ORDER_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 3.0)
_FEATURE_SHARES = (0.25, 0.5, 1.0)
_GAIN = 1.002  # a setting that does less for the metric is not worth its cost


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings, and their `Validation.score`."""

    settings: QuerySettings
    score: float


def choose_settings(
    learned: Learned, validation: Validation, kept: Histories, *, ordered: bool
) -> Choice:
    """Return the settings with the best NDCG, the mean of that at 10 and 100.

    They are chosen one after another. The best decay depends on whether there is an order part,
    so it is chosen again in the end.

    Args:
        learned: Parts, trained on the training part.
        validation: Questions of the validation part.
        kept: Events of the training part `[num_users]`.
        ordered: Whether the order of events is known; without it, all events weigh the same.
    """
    compared = _Compared(learned, validation, kept)
    best = QuerySettings(linear_weight=0.0 if learned.linear is None else _LINEAR_WEIGHT)
    score = compared.score(best)

    def attempt(name: str, values: Sequence[float]) -> None:
        nonlocal best, score
        for value in values:
            settings = dataclasses.replace(best, **{name: value})
            result = compared.score(settings)
            log.info("NDCG on the validation part %.4f with %s", result, settings)
            if result > score * _GAIN:
                best, score = settings, result

    if ordered:
        attempt("decay", _DECAYS[1:])
    if validation.questions.known.any():
        attempt("user_share", _USER_SHARES)
    if learned.order is not None:
        attempt("order_weight", _ORDER_WEIGHTS)
        attempt("decay", _DECAYS)
    if learned.linear is not None:
        attempt("linear_weight", [0.0])
    return Choice(settings=best, score=score)


def choose_feature_share(
    learned: Learned,
    choice: Choice,
    validation: Validation,
    kept: Histories,
    rows: FeatureRows,
    dataset: Dataset,
) -> Choice:
    """Add the share of the features' vectors for users with events, best by `Validation.score`.

    Args:
        learned: Parts, trained on the training part.
        choice: Settings that `choose_settings` chose.
        validation: Questions of the validation part.
        kept: Events of the training part `[num_users]`.
        rows: Interactions of the training part by their features.
        dataset: Interactions, of which the judged ones tell the context of the questions.

    Returns:
        The settings with the share; None if features tell nothing about users without events.
    """
    queries, candidates = _Compared(learned, validation, kept).vectors(choice.settings)
    useful = fit_feature_queries(candidates, rows)
    if useful is None:
        settings = dataclasses.replace(choice.settings, feature_share=None)
        return dataclasses.replace(choice, settings=settings)
    columns, vectors = useful
    questions = validation.questions
    first = np.searchsorted(questions.owners, np.arange(len(questions)))
    pairs = columns.of(dataset, questions.users, questions.interactions[first])
    added = np.zeros_like(queries)
    np.add.at(added, np.repeat(np.arange(len(questions)), pairs.counts), vectors[pairs.columns])
    best, score = 0.0, validation.score(queries, candidates)
    for share in _FEATURE_SHARES:
        result = validation.score(queries + np.float32(share) * added, candidates)
        log.info("NDCG on the validation part %.4f with features by %g", result, share)
        if result > score * _GAIN:
            best, score = share, result
    settings = dataclasses.replace(choice.settings, feature_share=best)
    return Choice(settings=settings, score=score)


class _Compared:
    """Computes each part's queries once for all settings that share them."""

    def __init__(self, learned: Learned, validation: Validation, kept: Histories) -> None:
        self._learned, self._validation, self._kept = learned, validation, kept
        self._taste = functools.lru_cache(maxsize=4)(self._taste_queries)
        self._linear = functools.lru_cache(maxsize=2)(self._linear_queries)
        self._order = functools.cache(self._order_queries)

    def score(self, settings: QuerySettings) -> float:
        return self._validation.score(*self.vectors(settings))

    def vectors(self, settings: QuerySettings) -> tuple[Vectors, Vectors]:
        """Queries of the questions, and candidates."""
        learned = self._learned
        queries = [self._taste(settings.decay, settings.user_share)]
        tables = [learned.taste.candidates]
        if settings.linear_weight and learned.linear is not None:
            factor = learned.linear_factor(settings, self._kept)
            queries.append(self._linear(settings.decay) * np.float32(factor))
            tables.append(learned.linear.candidates)
        if settings.order_weight and learned.order is not None:
            queries.append(self._order() * np.float32(settings.order_weight))
            tables.append(learned.order.candidates)
        return np.concatenate(queries, axis=1), np.concatenate(tables, axis=1)

    def _taste_queries(self, decay: float, user_share: float) -> Vectors:
        return self._validation.taste_queries(
            self._learned.taste, decay=decay, user_share=user_share
        )

    def _linear_queries(self, decay: float) -> Vectors:
        linear = self._learned.linear
        assert linear is not None
        columns = slice(0, len(linear.gains))
        part = linear.part(columns, decay=decay, scale=1.0, factor=1.0)
        return embed_part(part, linear.candidates, self._validation.histories)

    def _order_queries(self) -> Vectors:
        order = self._learned.order
        assert order is not None
        columns = slice(0, order.tower.dimension)
        part = OrderPart(order.tower, columns, scale=1.0, factor=1.0)
        recent = self._validation.histories.last(order.tower.length)
        return embed_part(part, order.candidates, recent)
