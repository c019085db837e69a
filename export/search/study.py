"""Trials of a search, chosen and stored by Optuna."""

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import configured_split
from shortlist.export.progress import Progress, TrainingState
from shortlist.export.search.space import Choices, Space, Value, with_settings
from shortlist.export.training.checkpoint import data_fingerprint
from shortlist.export.training.train import validation_score

__all__ = ["Outcome", "SearchResult", "StudyConfig", "search"]

_IDENTITY = "shortlist"  # attribute of a study: what its trials have in common
_DIFFERENT = {
    "data": "other data or another split",
    "space": "another --space",
    "towers": "other settings of [towers]",
    "train": "other settings of [train]",
}
_PROBLEM = "problem"  # attribute of a failed trial
_LOOKS_WITHOUT_PRUNING = 3  # the first values tell little
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Extent of a search.

    Attributes:
        trials: Number of trials in all, those of earlier runs with the same storage included.
        timeout: Seconds after which no trial begins; None for no limit.
        storage: Address of a database, such as `sqlite:///tune.db`; None for memory.
        name: Name of the study in the storage.
    """

    trials: int = 30
    timeout: float | None = None
    storage: str | None = None
    name: str = "shortlist"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials must be positive, got {self.trials}")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One finished trial.

    Attributes:
        number: Number of the trial, from 0; the first one has the settings to improve on.
        state: `complete`, `pruned` or `failed`.
        score: Score on the validation part; None unless complete.
        settings: Value by dotted key.
        seconds: Duration.
        problem: Reason of a failure.
    """

    number: int
    state: str
    score: float | None
    settings: Mapping[str, Value]
    seconds: float
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Finished trials of a study.

    Attributes:
        outcomes: Trials in their order, those of earlier runs included.
        earlier: Number of trials of earlier runs.
    """

    outcomes: list[Outcome]
    earlier: int

    @property
    def best(self) -> Outcome | None:
        """The trial with the highest score; the first one of equals, None without a score."""
        scored = [one for one in self.outcomes if one.score is not None]
        return max(scored, key=lambda one: one.score or 0.0, default=None)


def search(
    dataset: Dataset,
    config: ExportConfig,
    space: Space,
    study_config: StudyConfig,
    *,
    progress: Progress,
    finished: Callable[[SearchResult], None],
) -> SearchResult:
    """Try settings and measure them on the validation part; the held-out part is never read.

    The first trial has the settings of `config`, as far as the space holds them. Trials whose
    validations lag behind the median of earlier ones end early.

    Args:
        dataset: Interactions and candidates.
        config: Configuration to start from.
        space: Settings that may change.
        study_config: Number of trials, time and storage.
        progress: Callback of each training.
        finished: Called after each trial with all trials so far.

    Raises:
        ValueError: The study has trials of other data or settings, or no trial succeeded.
    """
    split = configured_split(dataset, config.train)
    identity = {
        "data": data_fingerprint(dataset, split),
        "space": {key: asdict(dimension) for key, dimension in space.items()},
        "towers": asdict(config.towers),
        "train": {**asdict(config.train), "tensorboard": None, "split": split.method},
    }
    with _open(study_config, identity, seed=config.train.seed) as study:
        study.enqueue_trial(_start(config, space), skip_if_exists=True)
        earlier = len(_outcomes(study))

        def objective(trial: Trial) -> float:
            settings = {key: _suggest(trial, key, space) for key in space}
            try:
                changed = with_settings(config, settings)
                return validation_score(
                    dataset,
                    split,
                    changed.towers,
                    changed.train,
                    progress=_Pruning(trial, progress),
                )
            except ValueError as exc:
                trial.set_user_attr(_PROBLEM, str(exc))
                raise
            finally:
                gc.collect()  # traced functions and their variables refer to each other

        def result() -> SearchResult:
            return SearchResult(outcomes=_outcomes(study), earlier=earlier)

        if earlier < study_config.trials:
            study.optimize(
                objective,
                n_trials=study_config.trials - earlier,
                timeout=study_config.timeout,
                catch=(ValueError,),
                callbacks=[lambda study, trial: finished(result())],
            )
        done = result()
        if done.best is None:
            problems = [one.problem for one in done.outcomes if one.problem]
            raise ValueError(f"no trial succeeded: {problems[0] if problems else 'none has ended'}")
        return done


class _Pruning(Progress):
    """Passes progress on, and ends a trial whose validations lag behind."""

    def __init__(self, trial: Trial, progress: Progress) -> None:
        self._trial, self._progress = trial, progress
        self._looks = 0
        self._latest: float | None = None

    def batches_done(self, state: TrainingState) -> None:
        self._progress.batches_done(state)
        if state.phase != "search" or state.validation in (None, self._latest):
            return
        self._latest = state.validation
        self._trial.report(state.validation, self._looks)
        self._looks += 1
        if self._trial.should_prune():
            raise optuna.TrialPruned


@contextmanager
def _open(config: StudyConfig, identity: Mapping[str, Any], *, seed: int) -> Iterator[optuna.Study]:
    """Open the study, new or with the trials of earlier runs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _storage(config.storage) as storage:
        study = optuna.create_study(
            storage=storage,
            study_name=config.name,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=_LOOKS_WITHOUT_PRUNING),
        )
        ours = json.loads(json.dumps(identity))
        theirs = study.user_attrs.get(_IDENTITY, ours)
        differing = [key for key in ours if ours[key] != theirs.get(key)]
        if differing:
            raise ValueError(
                f"study {config.name!r} in --storage has trials with {_DIFFERENT[differing[0]]}; "
                "repeat the options of its first run, or start another study with --study NAME"
            )
        study.set_user_attr(_IDENTITY, ours)
        # The same seed again would draw the same settings again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        yield study


@contextmanager
def _storage(address: str | None) -> Iterator[RDBStorage | None]:
    """Open the database of a study; its connections are closed at the end."""
    if address is None:
        yield None
        return
    try:
        storage = RDBStorage(address)
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as exc:
        # The address may hold a password.
        reason = " ".join(str(exc.__cause__ or exc).split())
        raise ValueError(
            f"--storage cannot be opened ({reason}); give a file such as tune.db, or the URL of a "
            "database"
        ) from exc
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _start(config: ExportConfig, space: Space) -> dict[str, Value]:
    """Return the settings of a configuration, as far as the space holds them."""
    start: dict[str, Value] = {}
    for key, dimension in space.items():
        table, _, name = key.partition(".")
        now = getattr(getattr(config, table), name)
        if isinstance(dimension, Choices):
            inside = now in dimension.values
        else:
            inside = now is not None and dimension.low <= now <= dimension.high
        if inside:
            start[key] = now
    return start


def _suggest(trial: Trial, key: str, space: Space) -> Value:
    dimension = space[key]
    if isinstance(dimension, Choices):
        return trial.suggest_categorical(key, list(dimension.values))
    suggest = trial.suggest_int if dimension.whole else trial.suggest_float
    return suggest(key, dimension.low, dimension.high, log=dimension.log)


def _outcomes(study: optuna.Study) -> list[Outcome]:
    trials = study.get_trials(deepcopy=False)
    return [_outcome(trial) for trial in trials if trial.state in _STATES]


def _outcome(trial: FrozenTrial) -> Outcome:
    duration = trial.duration
    return Outcome(
        number=trial.number,
        state=_STATES[trial.state],
        score=trial.value if trial.state == TrialState.COMPLETE else None,
        settings=dict(trial.params),
        seconds=0.0 if duration is None else duration.total_seconds(),
        problem=trial.user_attrs.get(_PROBLEM),
    )
