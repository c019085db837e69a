"""A report with everything in it: metrics of synthetic embeddings, and hostile titles."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.evaluate import RatingQuality
from shortlist.export.evaluation.judge import Judged, judge_baseline
from shortlist.export.gates.record import GATES
from shortlist.export.report.content import IndexFacts, Report, data_facts
from shortlist.export.report.samples import Scores, sample_users
from shortlist.export.towers.trained import EpochRecord
from shortlist.serving.repository.version import GateResult, Verdict
from tests.support.evaluation import UserScores, evaluate_users, inner_products

SCRIPT = "<script>window.ran = true</script>"
IMAGE = '"><img src="https://example.com/x.png" onerror="window.ran = true">'
LONG = "Supercalifragilisticexpialidocious" * 5
ARABIC = "ألف ليلة وليلة"


@pytest.fixture(scope="session")
def hostile_dataset(small_dataset: Dataset) -> Dataset:
    """The small data set, its most popular candidates renamed so that the report shows them."""
    titles = list(small_dataset.titles)
    popular = np.argsort(-np.bincount(small_dataset.candidate_positions), kind="stable")
    for candidate, title in zip(popular, (SCRIPT, IMAGE, LONG, ARABIC), strict=False):
        titles[candidate] = title
    return dataclasses.replace(small_dataset, titles=tuple(titles), name="sample & <b>more</b>")


@pytest.fixture(scope="session")
def split(hostile_dataset: Dataset) -> Split:
    return make_split(hostile_dataset, held_out_fraction=0.2, seed=1, validation_fraction=0.1)


@pytest.fixture(scope="session")
def scorer(hostile_dataset: Dataset) -> UserScores:
    """Scores of synthetic embeddings, biased towards popular candidates like trained ones."""
    random = np.random.default_rng(7)
    counts = np.bincount(
        hostile_dataset.candidate_positions, minlength=len(hostile_dataset.candidate_ids)
    )
    queries = random.normal(size=(len(hostile_dataset.user_ids), 6))
    candidates = random.normal(size=(len(hostile_dataset.candidate_ids), 6))
    queries[:, 0], candidates[:, 0] = 1.0, counts / 4
    return inner_products(queries, candidates)


def scores_of(scorer: UserScores) -> Scores:
    """Scores of known users by id, and of unknown ones by the length of their history."""

    def scores(users: npt.NDArray[np.integer], histories: Histories) -> npt.NDArray[np.floating]:
        (user,) = users
        return scorer(np.array([user if user >= 0 else len(histories.events.columns)]))

    return scores


@pytest.fixture(scope="session")
def full_report(hostile_dataset: Dataset, split: Split, scorer: UserScores) -> Report:
    def index(kind: str, exact: bool, points: list[tuple[float, float]]) -> IndexFacts:
        latency, recall = points[-1]
        return IndexFacts(
            servable=f"retrieval_{kind}",
            kind=kind,
            exact=exact,
            k=10,
            num_queries=500,
            target=0.95,
            recall=recall,
            latency_ms=latency,
            curve=points,
            parameters={} if exact else {"num_leaves": 125, "num_leaves_to_search": 10},
            size_bytes=1_234_567,
        )

    indexes = [
        index("brute_force", True, [(12.5, 1.0)]),
        index("scann", False, [(0.4, 0.82), (0.5, 0.91), (0.6, 0.8), (0.9, 0.953)]),
        index("ivf", False, [(0.3, 0.79), (0.7, 0.93), (1.1, 0.972)]),
    ]
    verdicts = [Verdict.PASSED] * (len(GATES) - 2) + [Verdict.ALLOWED, Verdict.SKIPPED]
    gates = [
        GateResult(gate=gate, verdict=verdict, measured="0.95 <i>", required=">= 0.9")
        for gate, verdict in zip(GATES, verdicts, strict=True)
    ]
    model = dataclasses.replace(
        evaluate_users(scorer, hostile_dataset, split, resamples=100),
        rating=RatingQuality(rmse=0.8765, baseline_rmse=0.9321, num_ratings=1234),
    )
    popular = judge_baseline(hostile_dataset, split, "popularity", seed=1, resamples=100)
    ease = judge_baseline(hostile_dataset, split, "ease", seed=1, resamples=100)
    config = ExportConfig().as_json(split="random")
    return Report(
        model="retrieval",
        version=7,
        created="2026-01-02T03:04:05+00:00",
        data=data_facts(hostile_dataset, split, seed=1),
        judged=[
            Judged(name="this model", evaluation=model),
            Judged(name="popularity", evaluation=popular),
            Judged(name="ease", evaluation=ease),
            Judged(name="ials", evaluation=None, problem="the package scipy is missing"),
        ],
        epochs=20,
        records=[
            EpochRecord(
                epoch=epoch,
                loss=8.0 - epoch**0.4,
                validation=0.1 + 0.01 * epoch - 0.00025 * epoch**2 if epoch % 2 == 0 else None,
            )
            for epoch in range(1, 27)
        ],
        samples=sample_users(
            hostile_dataset,
            split,
            scores_of(scorer),
            protocol="seen_excluded",
            seed=1,
        ),
        indexes=indexes,
        gates={index.servable: gates for index in indexes},
        config=config,
        protocol="seen_excluded",
        settings={"decay": 0.8, "order_weight": 2.0},
        packages={"shortlist": "0.1.0", "tensorflow": "2.20.0"},
    )
