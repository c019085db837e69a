"""A search starts from the given settings, continues where it ended, and survives bad trials."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shortlist.export.config import ExportConfig, ModelConfig, TrainConfig
from shortlist.export.progress import Progress, TrainingState
from shortlist.export.search.space import Choices, Range, Space

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.search.study import SearchResult

CONFIG = ExportConfig(train=TrainConfig(split="random", learning_rate=0.02))
SPACE: Space = {"train.learning_rate": Range(low=0.001, high=0.1, log=True)}

Score = Callable[[ModelConfig, TrainConfig, Progress], float]


@pytest.fixture
def run(small_dataset: "Dataset", monkeypatch: pytest.MonkeyPatch) -> Callable[..., "SearchResult"]:
    """Return a search whose trials compute a function instead of training."""
    from shortlist.export.search import study

    def search(score: Score, space: Space = SPACE, **settings: Any) -> "SearchResult":
        def validation_score(
            dataset: Any, split: Any, towers: ModelConfig, train: TrainConfig, *, progress: Progress
        ) -> float:
            return score(towers, train, progress)

        monkeypatch.setattr(study, "validation_score", validation_score)
        return study.search(
            small_dataset,
            CONFIG,
            space,
            study.StudyConfig(**settings),
            progress=Progress(),
            finished=lambda result: None,
        )

    return search


def rate(towers: ModelConfig, train: TrainConfig, progress: Progress) -> float:
    return train.learning_rate


def test_the_first_trial_has_the_given_settings_and_the_best_score_wins(
    run: Callable[..., "SearchResult"],
) -> None:
    result = run(rate, trials=6)
    assert result.outcomes[0].settings == {"train.learning_rate": 0.02}
    best = result.best
    assert best is not None
    assert best.score == max(one.score for one in result.outcomes if one.score is not None)
    assert best.settings["train.learning_rate"] == best.score


def test_a_stored_search_continues_and_repeats_no_trial(
    run: Callable[..., "SearchResult"], tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path}/tune.db"
    first = run(rate, trials=3, storage=storage)
    second = run(rate, trials=5, storage=storage)
    assert second.earlier == 3
    assert second.outcomes[:3] == first.outcomes
    assert len({one.settings["train.learning_rate"] for one in second.outcomes}) == 5
    assert run(rate, trials=5, storage=storage).outcomes == second.outcomes
    with pytest.raises(ValueError, match="another --space; repeat the options"):
        run(rate, {"train.learning_rate": Choices((0.01,))}, trials=5, storage=storage)


@pytest.mark.slow
def test_a_trial_that_lags_behind_ends_early(run: Callable[..., "SearchResult"]) -> None:
    def train(towers: ModelConfig, config: TrainConfig, progress: Progress) -> float:
        for look in range(10):
            value = config.learning_rate * (1 + look)
            progress.batches_done(
                TrainingState(
                    phase="search", done=look, total=10, loss=1.0, interactions=1, validation=value
                )
            )
        return config.learning_rate

    states = [one.state for one in run(train, trials=20).outcomes]
    assert states[:5] == ["complete"] * 5
    assert "pruned" in states


def test_a_failed_trial_does_not_end_the_search(run: Callable[..., "SearchResult"]) -> None:
    def diverge(towers: ModelConfig, config: TrainConfig, progress: Progress) -> float:
        if config.learning_rate != 0.02:
            raise ValueError("training diverged")
        return 0.5

    result = run(diverge, trials=3)
    assert [one.state for one in result.outcomes] == ["complete", "failed", "failed"]
    assert result.outcomes[1].problem == "training diverged"

    def fail(towers: ModelConfig, config: TrainConfig, progress: Progress) -> float:
        raise ValueError("there is no validation part")

    with pytest.raises(ValueError, match="no trial succeeded: there is no validation part"):
        run(fail, trials=2)


def test_a_storage_that_cannot_be_opened_is_named(run: Callable[..., "SearchResult"]) -> None:
    with pytest.raises(ValueError, match="--storage cannot be opened"):
        run(rate, trials=1, storage="sqlite:////nowhere/tune.db")
