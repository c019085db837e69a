"""Puts the parts of a model together: query tower and candidate embeddings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.towers.feature_queries import FeatureQueries
from shortlist.export.towers.order import OrderTower
from shortlist.export.towers.order_part import OrderPart
from shortlist.export.towers.query_tower import QueryPart, QueryTower
from shortlist.export.towers.rating_head import RatingHead
from shortlist.export.towers.shared import shareable_table
from shortlist.export.towers.trained import EpochRecord, TrainedModel, embed_part
from shortlist.export.training.query.feature_queries import FeatureRows, fit_feature_queries
from shortlist.export.training.query.linear import Linear
from shortlist.export.training.query.taste import Taste
from shortlist.export.training.unknown_user import popular_query

__all__ = ["Learned", "Order", "QuerySettings", "assemble"]

Vectors = npt.NDArray[np.float32]

_SAMPLE = 200  # histories whose scores are compared


@dataclass(frozen=True, kw_only=True)
class QuerySettings:
    """How the parts of a query are put together; the validation part chooses.

    Attributes:
        decay: Weight of an event relative to that of the next one, in 0..1; not for `order`.
        user_share: Share of a known user's learned query in place of the one that follows from
            the user's history, in 0..1.
        linear_weight: Weight of the linear part, relative to the spread of the taste's scores.
        order_weight: Weight of the scores of the order.
        feature_share: Share of what features add, for users with events, in 0..1; None if the
            model takes no features.
        popularity_half_life_days: Age at which an event counts a half for users of whom nothing is
            known; None if all events count the same.
    """

    decay: float = 1.0
    user_share: float = 0.0
    linear_weight: float = 0.0
    order_weight: float = 0.0
    feature_share: float | None = 0.0
    popularity_half_life_days: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """A trained order tower with its candidates `[num_candidates, d]`."""

    tower: OrderTower
    candidates: Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """The parts of a model that one training has learned.

    Attributes:
        taste: Always there.
        linear: None for a large corpus, or if not asked for.
        order: None without times, or if not asked for.
    """

    taste: Taste
    linear: Linear | None = None
    order: Order | None = None

    def linear_factor(self, settings: QuerySettings, histories: Histories) -> float:
        """Return the factor that gives the linear scores their weight, measured on histories."""
        assert self.linear is not None
        some = np.flatnonzero(histories.events.counts)
        some = some[np.linspace(0, len(some) - 1, min(len(some), _SAMPLE)).astype(np.int64)]
        sample, taste = histories.take(some), self.taste
        columns = slice(0, len(self.linear.gains))
        linear = self.linear.part(columns, decay=settings.decay, scale=1.0, factor=1.0)
        spreads = [
            float((embed_part(part, table, sample) @ table.T).std(axis=1).mean())
            for part, table in (
                (taste.part(decay=settings.decay), taste.candidates),
                (linear, self.linear.candidates),
            )
        ]
        return settings.linear_weight * spreads[0] / max(spreads[1], 1e-9)


def assemble(
    learned: Learned,
    settings: QuerySettings,
    dataset: Dataset,
    kept: Histories,
    features: FeatureRows | None = None,
    *,
    epochs: int,
    records: Sequence[EpochRecord],
    rating_head: RatingHead | None = None,
) -> TrainedModel:
    """Return the model that serves the parts.

    Args:
        learned: Parts; those of weight 0 are left out.
        settings: Settings of the query tower.
        dataset: Users and candidates.
        kept: Events of each user that the tower keeps, `[num_users]`.
        features: Interactions by their features; None to take no features.
        epochs: Number of epochs of the training.
        records: Epochs of the training that chose this number.
        rating_head: Predicts ratings, if there is one.
    """
    taste = learned.taste
    pooled = taste.part(decay=settings.decay)
    parts: list[QueryPart] = [pooled]
    tables, end = [(taste.candidates, 1.0)], taste.candidates.shape[1]
    if settings.linear_weight and learned.linear is not None:
        factor = learned.linear_factor(settings, kept)
        scale = _scale(learned.linear.candidates, target=0.5)
        columns = slice(end, end + len(learned.linear.gains))
        parts.append(learned.linear.part(columns, decay=settings.decay, scale=scale, factor=factor))
        tables.append((learned.linear.candidates, scale))
        end = columns.stop
    if settings.order_weight and learned.order is not None:
        scale = _scale(learned.order.candidates, target=1.0)
        columns = slice(end, end + learned.order.tower.dimension)
        parts.append(
            OrderPart(learned.order.tower, columns, scale=scale, factor=settings.order_weight)
        )
        tables.append((learned.order.candidates, scale))
    candidates = _side_by_side(tables)
    users = None
    if settings.user_share:
        users = embed_part(pooled, taste.candidates, kept)
        np.subtract(taste.users, users, out=users)
        users *= np.float32(settings.user_share)
    counts = kept.popularity(settings.popularity_half_life_days)
    tower = QueryTower(
        dataset.user_ids,
        known=kept.events.counts > 0,
        popular=popular_query(candidates, counts),
        num_candidates=len(candidates),
        parts=parts,
        kept=kept,
        users=users,
        features=None if features is None else _feature_queries(candidates, features),
        feature_share=settings.feature_share or 0.0,
    )
    return TrainedModel(
        query_tower=tower,
        candidate_embeddings=candidates,
        epochs=epochs,
        records=records,
        taste_dimension=taste.candidates.shape[1],
        settings={name: value for name, value in asdict(settings).items() if value is not None},
        rating_head=rating_head,
    )


def _feature_queries(candidates: Vectors, rows: FeatureRows) -> FeatureQueries | None:
    useful = fit_feature_queries(candidates, rows)
    return None if useful is None else FeatureQueries(*useful)


def _side_by_side(tables: Sequence[tuple[Vectors, float]]) -> Vectors:
    """Return the tables, each times its factor, as columns of one, without further copies."""
    width = sum(table.shape[1] for table, _ in tables)
    joined = shareable_table(len(tables[0][0]), width)
    end = 0
    for table, factor in tables:
        columns = slice(end, end + table.shape[1])
        np.multiply(table, np.float32(factor), out=joined[:, columns])
        end = columns.stop
    return joined


def _scale(candidates: Vectors, *, target: float) -> float:
    """Return the factor that gives candidates a root mean square length."""
    length = np.sqrt(np.mean(np.einsum("nd,nd->n", candidates, candidates), dtype=np.float64))
    return float(target / length) if length > 0 else 1.0
