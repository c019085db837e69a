"""The gate `quality` on models that really learn, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.clients import contract
from shortlist.clients.types import Signature
from shortlist.export.config import Protocol, SplitMethod
from shortlist.export.data import DataConfig, load
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, make_split
from shortlist.export.gates.quality import check_quality, plan_comparison
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.export.servable.self_test import sample_users
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.probe import UserSample, write_corpus, write_user_sample
from shortlist.serving.repository.version import (
    GateResult,
    Headline,
    Manifest,
    Verdict,
    write_manifest,
)
from shortlist.serving.servers.check import FreshServable
from tests.support.clicks import make_clicks

Factors = npt.NDArray[np.float32]
SHUFFLES = range(20)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def films() -> Dataset:
    """Each user meets a candidate once."""
    return load(
        DataConfig(
            source="sample",
            sample_users=300,
            sample_candidates=300,
            sample_interactions=15_000,
        )
    )


@pytest.fixture(scope="module")
def clicks() -> Dataset:
    """Users return to a few favourites again and again."""
    return make_clicks(num_users=200, num_candidates=80, total=8000)


@pytest.fixture
def data(request: pytest.FixtureRequest) -> Dataset:
    dataset: Dataset = request.getfixturevalue(request.param)
    return dataset


@dataclass(frozen=True, kw_only=True)
class Model:
    """A version without its SavedModel.

    Attributes:
        dataset: Data of the training.
        split: Its split.
        queries: Embedding of each user.
        candidates: Embedding of each candidate.
    """

    dataset: Dataset
    split: Split
    queries: Factors
    candidates: Factors

    @cached_property
    def sample(self) -> UserSample:
        """What the version records."""
        return sample_users(self.dataset, self.split)

    def answers(self, queries: Sequence[GoldenQuery]) -> tuple[dict[str, Any], ...]:
        users = {user: row for row, user in enumerate(self.dataset.user_ids)}
        places = {candidate: row for row, candidate in enumerate(self.dataset.candidate_ids)}
        ids = np.array(self.dataset.candidate_ids)
        answers = []
        for query in queries:
            asked = [users.get(user) for user in query.inputs[contract.USER_ID]]
            rows = np.array([self.queries.mean(0) if u is None else self.queries[u] for u in asked])
            scores = rows @ self.candidates.T
            for row, excluded in zip(scores, query.inputs[contract.EXCLUDE], strict=True):
                row[[places[candidate] for candidate in excluded if candidate in places]] = -np.inf
            best = np.argsort(-scores, axis=1, kind="stable")[:, : query.inputs[contract.K]]
            answers.append({contract.CANDIDATE_IDS: ids[best].tolist()})
        return tuple(answers)

    def fresh(self, queries: Sequence[GoldenQuery] = ()) -> FreshServable:
        signature = Signature(inputs={}, outputs={}, method_name="")
        return FreshServable(
            signatures={contract.RETRIEVE: signature}, answers=self.answers(queries)
        )


def train(
    dataset: Dataset, *, method: SplitMethod = "random", seed: int = 42, repeats: bool = False
) -> Model:
    """Fit EASE (Steck, 2019), or the rows' largest factors for data in which users come back."""
    split = make_split(dataset, method=method, seed=seed)
    matrix = np.zeros((len(dataset.user_ids), len(dataset.candidate_ids)), np.float32)
    fitted = split.fitted
    np.add.at(matrix, (dataset.user_positions[fitted], dataset.candidate_positions[fitted]), 1)
    if repeats:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        queries, candidates = left[:, :40] * values[:40], right[:40].T
    else:
        inverse = np.linalg.inv(matrix.T @ matrix + 100 * np.eye(matrix.shape[1]))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        queries, candidates = matrix, weights.T.astype(np.float32)
    return Model(dataset=dataset, split=split, queries=queries, candidates=candidates)


def gate(
    new: Model, live: Model, folder: Path, *, protocol: Protocol = "seen_excluded"
) -> GateResult:
    """Result of version 2 over version 1, as a publication gets it."""
    headline = Headline(metric="hit_rate@10", protocol=protocol, value=0.2)
    manifest = Manifest(metrics={"headline": headline.as_json()}, created="2026-11-28")
    write_user_sample(folder, live.sample)
    write_corpus(folder, live.dataset.candidate_ids)
    write_manifest(folder, manifest)
    subject = Subject(
        name="retrieval_brute_force",
        version=2,
        path=folder,
        manifest=manifest,
        golden=(),
        probe=None,
        corpus=list(new.dataset.candidate_ids),
        sample=new.sample,
        live=Live(version=1, path=folder),
    )
    comparison = plan_comparison(subject, GateSettings())
    if isinstance(comparison, GateResult):
        return comparison
    queries = comparison.queries()
    return check_quality(
        comparison, new.fresh(), new.answers(queries), live.fresh(queries), GateSettings()
    )


def first(dataset: Dataset, share: float) -> Dataset:
    """The earliest interactions, with the users that they have, as an export of that day."""
    assert dataset.timestamps is not None
    rows = np.sort(
        np.argsort(dataset.timestamps, kind="stable")[: int(len(dataset.timestamps) * share)]
    )
    users, positions = np.unique(dataset.user_positions[rows], return_inverse=True)
    return replace(
        dataset,
        user_ids=tuple(dataset.user_ids[user] for user in users),
        user_positions=positions.astype(np.int32),
        candidate_positions=dataset.candidate_positions[rows],
        timestamps=dataset.timestamps[rows],
        ratings=None,
    )


@pytest.mark.parametrize(
    ("data", "method", "protocol"),
    [
        ("films", "random", "seen_excluded"),
        ("films", "leave_last_out", "seen_excluded"),
        ("films", "global_time", "seen_excluded"),
        ("clicks", "random", "seen_kept"),
    ],
    indirect=["data"],
)
def test_ten_nightly_exports_of_the_same_recipe_pass(
    data: Dataset, tmp_path: Path, method: SplitMethod, protocol: Protocol
) -> None:
    repeats = protocol == "seen_kept"
    live = train(first(data, 0.8), method=method, repeats=repeats)
    for night in range(1, 11):
        new = train(first(data, 0.8 * 1.02**night), method=method, repeats=repeats)
        result = gate(new, live, tmp_path, protocol=protocol)
        assert result.verdict is Verdict.PASSED, (night, result)
        live = new


@pytest.mark.parametrize("tower", ["queries", "candidates"])
@pytest.mark.parametrize(
    ("data", "protocol"),
    [("films", "seen_excluded"), ("clicks", "seen_kept")],
    indirect=["data"],
)
def test_shuffled_embeddings_always_fail(
    data: Dataset, tmp_path: Path, tower: str, protocol: Protocol
) -> None:
    repeats = protocol == "seen_kept"
    live, new = (train(first(data, share), repeats=repeats) for share in (0.9, 1))
    for seed in SHUFFLES:
        rows = np.random.default_rng(seed).permutation(getattr(new, tower))
        shuffled = (
            replace(new, queries=rows) if tower == "queries" else replace(new, candidates=rows)
        )
        result = gate(shuffled, live, tmp_path, protocol=protocol)
        assert result.verdict is Verdict.FAILED, (seed, result)


def test_another_seed_of_the_split_is_compared_without_bias(films: Dataset, tmp_path: Path) -> None:
    """Each model knows interactions that the other held out; neither may gain from that."""
    live = train(films, seed=42)
    changes = []
    for seed in range(1, 6):
        result = gate(train(films, seed=seed), live, tmp_path)
        assert result.verdict is Verdict.PASSED, result
        changes.append(float(result.measured.partition("change ")[2].partition("%")[0]))
    assert abs(np.mean(changes)) < 10, changes
