"""Data that grow with the corpus or the users are in the checkpoint, never in the graph.

A GraphDef must stay below 2 GB, and every server reads all of it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.export._tf import saved_model_pb2, tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig, ScannConfig
from shortlist.export.data.dataset import Attribute
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.index.build import build_index
from shortlist.export.servable.askers import KnownUsers
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.saved_model import save
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.towers.pooled import PooledPart
from shortlist.export.towers.query_tower import QueryTower

pytestmark = pytest.mark.slow

DIMENSION = 8

INDEXES: dict[str, IndexConfig] = {
    "brute_force": BruteForceConfig(),
    "scann": ScannConfig(num_leaves=10, num_leaves_to_search=5, num_reordering_candidates=50),
    "ivf": IvfConfig(num_leaves=10, num_leaves_to_search=5, prefilter_dimensions=4),
}


def saved_graph(index: str, num_candidates: int, num_users: int, path: Path) -> Any:
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((num_candidates, DIMENSION)).astype(np.float32)
    users = rng.standard_normal((num_users, DIMENSION)).astype(np.float32)
    candidate_ids = [f"c{i:06}" for i in range(num_candidates)]
    events = Pairs.by_row(np.arange(num_users), np.arange(num_users), num_rows=num_users)
    built = build_index(index, candidates, candidate_ids, INDEXES[index])
    tower = QueryTower(
        [f"u{i:06}" for i in range(num_users)],
        known=np.ones(num_users, np.bool_),
        popular=users[0],
        num_candidates=num_candidates,
        parts=[
            PooledPart(
                slice(0, DIMENSION), np.eye(DIMENSION, dtype="f4"), decay=0.9, normalized=True
            )
        ],
        kept=Histories(events=events, num_candidates=num_candidates),
        users=users,
    )
    servable = RetrievalServable(
        askers=KnownUsers(tower, built.embeddings),
        index=built,
        candidate_ids=candidate_ids,
        candidate_filter=CandidateFilter(
            {
                "year": Attribute(
                    numbers=rng.integers(1950, 2020, num_candidates).astype(np.float64)
                ),
                "maker": Attribute(values=tuple((f"m{i // 2}",) for i in range(num_candidates))),
            },
            num_candidates,
        ),
        version=1,
        top_k=10,
    )
    save(servable, path, servable.signatures())
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((path / "saved_model.pb").read_bytes())
    return message.meta_graphs[0]


def largest_constant(meta_graph: Any) -> int:
    graph = meta_graph.graph_def
    nodes = [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]
    sizes = [node.attr["value"].tensor.ByteSize() for node in nodes if node.op == "Const"]
    return max(sizes)


@pytest.mark.parametrize("index", INDEXES)
def test_graph_does_not_grow_with_corpus_and_users(index: str, tmp_path: Path) -> None:
    graph = saved_graph(index, 20_000, 10_000, tmp_path)
    # The largest ones are names of variables; a byte for each user would take more.
    assert largest_constant(graph) < 8000
    assert graph.ByteSize() < 2**20
    loaded = tf.saved_model.load(str(tmp_path))
    answer = loaded.signatures["serving_default"](user_id=tf.constant(["u000003", "nobody"]))
    assert answer["known_user"].numpy().tolist() == [True, False]
