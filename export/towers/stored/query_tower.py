"""The query tower of a published version, to be made again for another corpus or other users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.change import CorpusChange
from shortlist.export.data.histories import Histories, KeptEvents
from shortlist.export.towers.events import EventTable
from shortlist.export.towers.feature_queries import FeatureQueries
from shortlist.export.towers.order_part import OrderPart
from shortlist.export.towers.pooled import PooledPart
from shortlist.export.towers.query_tower import QueryPart, QueryTower
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["StoredQueryTower"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredQueryTower:
    """Users of a query tower in a version, and how its parts fit together.

    Attributes:
        user_ids: `[num_users]`.
        rows: Int64 `[num_users]`, the users' rows in the tables of the version.
        kept: Events of each user; None if the version keeps none.
    """

    user_ids: Sequence[str]
    rows: npt.NDArray[np.int64]
    kept: KeptEvents | None
    _stored: StoredModule = field(repr=False)
    _structure: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, askers: StoredModule, structure: Mapping[str, Any]) -> Self:
        """Read the query tower of the askers in a version; see `QueryTower.structure`."""
        tower = askers.under("_tower")
        user_ids = tower.ids("_ids")
        return cls(
            user_ids=user_ids,
            rows=np.arange(len(user_ids)),
            kept=EventTable.stored(askers.under("kept")) if "kept" in askers else None,
            _stored=tower,
            _structure=structure,
        )

    def without(self, users: npt.NDArray[np.bool_]) -> Self:
        """Return the tower without the users that bool `[num_users]` marks."""
        left = np.flatnonzero(~users)
        return replace(
            self,
            user_ids=[self.user_ids[row] for row in left.tolist()],
            rows=self.rows[left],
            kept=None if self.kept is None else self.kept.take(left),
        )

    def on(self, change: CorpusChange, later: Histories | None = None) -> QueryTower:
        """Return the tower over a changed corpus.

        Args:
            change: Change of the corpus of the version.
            later: `[num_users]`, events since, with positions after the change; None for none.
        """
        tower, structure = self._stored, self._structure
        features = structure["features"]
        known, kept = tower.value("_known")[self.rows], self.kept
        if kept is not None:
            kept = kept.on(change)
            kept = kept if later is None else kept.followed_by(later)
            known = known | (kept.events.counts > 0)
        return QueryTower(
            self.user_ids,
            known=known,
            popular=tower.value("_popular"),
            num_candidates=change.after,
            parts=[
                _part(tower.under(f"_parts/{number}"), part, change)
                for number, part in enumerate(structure["parts"])
            ],
            kept=kept,
            users=tower.value("_users")[self.rows] if "_users" in tower else None,
            features=(
                None
                if features is None
                else FeatureQueries.restored(tower.under("features"), features)
            ),
            feature_share=structure["feature_share"],
        )


def _part(stored: StoredModule, structure: Mapping[str, Any], change: CorpusChange) -> QueryPart:
    if structure["kind"] == "order":
        return OrderPart.restored(stored, structure)
    return PooledPart.restored(stored, structure, change)
