"""Measurement of candidates that training never met."""

import json

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.clients.cli.main import main
from shortlist.export.bench import unseen
from shortlist.export.bench.unseen import _Judge, _World
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs

SAMPLE = (
    *("--data", "sample", "--sample-users", "60", "--sample-candidates", "150"),
    *("--sample-interactions", "1500"),
)


def test_hit_rates_are_those_of_ranking_each_enlarged_corpus() -> None:
    rng = np.random.default_rng(5)
    users, known, new, dimension = 12, 200, 20, 4
    rows = rng.normal(size=(known + new, dimension)).astype(np.float32)
    queries = rng.normal(size=(users, dimension)).astype(np.float32)
    seen = rng.random((users, known)) < 0.1
    held_out = np.argwhere((rng.random((users, known)) < 0.1) & ~seen).T
    judged = np.argwhere(rng.random((users, new)) < 0.3).T
    owners, columns = np.nonzero(seen)
    judge = _Judge(
        _World(
            rows=rows[:known],
            queries=queries,
            seen=Pairs.by_row(owners, columns, num_rows=users),
            known=held_out,
            new=judged,
            since=judged[:, :0],
        )
    )
    batches = [np.arange(0, 12), np.arange(12, 20)]
    scores = queries @ rows.T
    scores[:, :known][seen] = -np.inf
    hits, after = 0, []
    for batch in batches:
        corpus = np.concatenate([np.arange(known), known + batch])
        best = [set(corpus[np.argsort(-own[corpus])[:10]].tolist()) for own in scores]
        hits += sum(known + place in best[user] for user, place in judged.T.tolist())
        after.append(np.mean([place in best[user] for user, place in held_out.T.tolist()]))
    before = np.mean(
        [
            place in np.argsort(-scores[user, :known])[:10].tolist()
            for user, place in held_out.T.tolist()
        ]
    )
    rates = judge.hit_rates(rows[known:], batches)
    assert rates["unseen hit_rate@10"] == pytest.approx(hits / judged.shape[1])
    assert rates["known change@10"] == pytest.approx(np.mean(after) / before - 1)


class _Towers:
    """Towers by the first genre, in place of a training."""

    def __init__(self, dataset: Dataset, *_: object) -> None:
        (genre,) = (own for own in dataset.attributes.values() if own.values is not None)
        assert genre.values is not None
        names = sorted({values[0] for values in genre.values})
        places = [names.index(values[0]) for values in genre.values]
        self.candidate_embeddings = np.eye(len(names), dtype=np.float32)[places]

    def embed_users(self, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        width = self.candidate_embeddings.shape[1]
        return np.random.default_rng(0).random((len(users), width), np.float32)


def test_command_compares_where_embeddings_come_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "train", _Towers)
    assert main(["bench", "unseen", *SAMPLE, "--seeds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {"content", "content, 10% at once", "content, 5 takers", "like another"} <= set(rows)
    metrics = rows["content"]
    assert 0 < metrics["unseen hit_rate@100"]["mean"] <= 1
    assert -1 <= metrics["known change@100"]["mean"] <= 0
