"""Training that goes on from the state of an earlier one, on data that has grown."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.bench.warm import until
from shortlist.export.config import (
    SPLIT_METHODS,
    ExportConfig,
    ModelConfig,
    SplitMethod,
    TrainConfig,
)
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.split import configured_split
from shortlist.export.evaluation.judge import judge_model
from shortlist.export.servable.self_test import sample_users
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.query.windows import with_windows
from shortlist.export.training.states.archive import Archive
from shortlist.export.training.states.state import Rows, State, matched_columns
from shortlist.export.training.states.warm_start import (
    TASTE_PART,
    WarmStart,
    WarmStartError,
    read_warm_start,
)
from shortlist.export.training.train import train
from shortlist.export.training.user_training import UserSteps
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.reference import VersionReference
from shortlist.serving.repository.version import Manifest, UpdateFacts, write_manifest

USERS, CANDIDATES, EVENTS = 120, 50, 12
TOWERS = ModelConfig(embedding_dim=16, order_dimension=16)
TRAIN = TrainConfig(epochs=12, batch_size=64, learning_rate=0.03, split="leave_last_out")


def walks() -> Dataset:
    """Users start one after another and walk along a circle of candidates."""
    random = np.random.default_rng(5)
    steps = np.where(np.arange(USERS) % 2, 1, -1)[:, None] * np.arange(EVENTS)
    candidates = (random.integers(0, CANDIDATES, USERS)[:, None] + steps) % CANDIDATES
    ids = tuple(f"c{number}" for number in range(CANDIDATES))
    times = np.arange(USERS)[:, None] * 3 + np.arange(EVENTS)
    return Dataset(
        name="walks",
        user_ids=tuple(f"u{number}" for number in range(USERS)),
        candidate_ids=ids,
        titles=ids,
        user_positions=np.repeat(np.arange(USERS, dtype=np.int32), EVENTS),
        candidate_positions=candidates.ravel().astype(np.int32),
        timestamps=(times.ravel() * 3600).astype(np.int64),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    dataset: Dataset
    model: TrainedModel
    warm_start: WarmStart


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(until(walks(), 1200), tmp_path_factory.mktemp("state"))


def trained(dataset: Dataset, folder: Path, warm_start: WarmStart | None = None) -> Trained:
    split = configured_split(dataset, TRAIN)
    model = train(dataset, split, TOWERS, TRAIN, warm_start=warm_start, state=folder)
    left = WarmStart(
        name="model_ivf/1",
        version=1,
        folder=folder,
        settings={"feature_share": None, **model.settings},
        split={**dataclasses.asdict(TRAIN), "split": split.method},
        sample=sample_users(dataset, split),
        corpus=list(dataset.candidate_ids),
    )
    return Trained(dataset=dataset, model=model, warm_start=left)


@pytest.mark.slow
def test_training_goes_on_in_fewer_epochs_with_the_same_settings(
    parent: Trained, tmp_path: Path
) -> None:
    grown = until(walks(), 1320)
    child = trained(grown, tmp_path, parent.warm_start)
    assert child.model.epochs <= 2 < parent.model.epochs
    assert child.model.settings == parent.model.settings
    split = configured_split(grown, TRAIN)
    metrics = judge_model(child.model, grown, split, ks=[1]).metrics
    assert metrics["seen_excluded"]["hit_rate@1"] > 0.7
    facts = parent.warm_start.facts(grown)
    before, now = set(parent.dataset.user_ids), set(grown.user_ids)
    assert facts["users"] == {
        "kept": len(before & now),
        "new": len(now - before),
        "gone": 0,
    }
    with Archive(tmp_path / TASTE_PART) as taste:
        assert taste.meta["users"] == list(grown.user_ids)
        assert taste.meta["candidates"] == list(grown.candidate_ids)


@pytest.mark.slow
def test_kept_rows_are_equal_and_new_ones_follow_from_their_events(parent: Trained) -> None:
    grown = until(walks(), 1320)
    kept = Histories.of_users(grown, configured_split(grown, TRAIN).training)
    steps = UserSteps.of_data(grown, with_windows(kept.events, 5), TOWERS, TRAIN)
    state = State(start=parent.warm_start.folder / TASTE_PART)
    steps.carry(state, grown)
    values = {variable.name: variable.numpy() for variable in steps.variables()}
    users = Rows.matched(parent.dataset.user_ids, grown.user_ids)
    with state.opened() as part:
        stored = part.array("cosine_users")
        np.testing.assert_array_equal(values["cosine_users:0"][users.places], stored[users.earlier])
        moments = part.array("cosine_users.v")[users.earlier]
        own = next(v for name, v in values.items() if name.endswith("cosine_users/v:0"))
        np.testing.assert_array_equal(own[users.places], moments)
        new = users.others(len(grown.user_ids))
        assert len(new)
        np.testing.assert_allclose(own[new[0]], moments.mean(axis=0), rtol=1e-5)
    queries, candidates = steps.model.query_embeddings(), steps.model.candidate_embeddings()
    active = new[kept.events.counts[new] > 0]
    scores = queries[active] @ candidates.T
    first = [
        np.isin(np.argsort(-row)[:10], kept.events.of(user)).sum() / kept.events.counts[user]
        for row, user in zip(scores, active.tolist(), strict=True)
    ]
    assert np.mean(first) > 0.5, "a new user's query is near the user's candidates"


def test_buckets_of_numbers_are_matched_by_place() -> None:
    earlier = ["genre=a", "year<1990", "year<2000", "year>=2000"]
    now = ["genre=b", "genre=a", "year<1991", "year<2000", "year>=2000"]
    rows = matched_columns(earlier, now)
    assert dict(zip(rows.places.tolist(), rows.earlier.tolist(), strict=True)) == {
        1: 0,
        2: 1,
        3: 2,
        4: 3,
    }


def warm_start_of(dataset: Dataset, config: TrainConfig, folder: Path) -> WarmStart:
    split = configured_split(dataset, config)
    return WarmStart(
        name="model_ivf/1",
        version=1,
        folder=folder,
        settings={},
        split={**dataclasses.asdict(config), "split": split.method},
        sample=sample_users(dataset, split),
        corpus=list(dataset.candidate_ids),
    )


def test_parent_that_knows_what_is_held_out_is_refused(tmp_path: Path) -> None:
    data = walks()
    whole = warm_start_of(data, TRAIN, tmp_path)
    fewer = until(data, 1200)
    with pytest.raises(WarmStartError, match=r"was trained on \d+ of \d+ .* now held out"):
        whole.check_split(fewer, configured_split(fewer, TRAIN), TRAIN)
    grown = warm_start_of(fewer, TRAIN, tmp_path)
    grown.check_split(data, configured_split(data, TRAIN), TRAIN)
    random = dataclasses.replace(TRAIN, split="random")
    with pytest.raises(WarmStartError, match="use --split leave_last_out, or export without"):
        grown.check_split(data, configured_split(data, random), random)


@pytest.mark.parametrize("split", SPLIT_METHODS)
def test_what_is_judged_stays_unknown_when_data_grows(split: SplitMethod) -> None:
    """The reason why the state of the training part may go on: by all methods of splitting."""
    config = dataclasses.replace(TRAIN, split=split)
    fewer, data = until(walks(), 1200), walks()

    def rows(dataset: Dataset, part: npt.NDArray[np.int64]) -> set[tuple[str, str, int]]:
        assert dataset.timestamps is not None
        return {
            (
                dataset.user_ids[dataset.user_positions[row]],
                dataset.candidate_ids[dataset.candidate_positions[row]],
                int(dataset.timestamps[row]),
            )
            for row in part.tolist()
        }

    before, now = configured_split(fewer, config), configured_split(data, config)
    assert not rows(fewer, before.training) & rows(data, now.validation)
    assert not rows(fewer, before.fitted) & rows(data, now.held_out)


def test_version_without_a_fitting_state_is_refused(tmp_path: Path) -> None:
    reference = VersionReference(repository=ModelRepository(tmp_path), name="model_ivf", version=1)
    config = ExportConfig(towers=TOWERS, train=TRAIN)
    write_manifest(tmp_path / "model_ivf/1", Manifest(model="retrieval", config=config.as_json()))
    with pytest.raises(WarmStartError, match=r"model_ivf/1 holds no training state; name a ver"):
        read_warm_start(reference, config, tmp_path)
    folder = reference.path / "assets.extra/shortlist_training"
    folder.mkdir()
    (folder / TASTE_PART).write_bytes(b"half")
    assert read_warm_start(reference, config, tmp_path).version == 1
    assert read_warm_start(reference, config, tmp_path / "other").version is None
    update = UpdateFacts()
    write_manifest(tmp_path / "model_ivf/2", Manifest(parent=1, update=update))
    updated = dataclasses.replace(reference, version=2)
    assert read_warm_start(updated, config, tmp_path).name == "model_ivf/1"
    longer = dataclasses.replace(config, towers=dataclasses.replace(TOWERS, embedding_dim=32))
    with pytest.raises(WarmStartError, match="embedding_dim is 16 in model_ivf/1 and 32 here"):
        read_warm_start(reference, longer, tmp_path)
    tutorial = dataclasses.replace(
        config, train=dataclasses.replace(TRAIN, loss="in_batch_softmax")
    )
    with pytest.raises(WarmStartError, match="in_batch_softmax has no warm start"):
        read_warm_start(reference, tutorial, tmp_path)
    with pytest.raises(WarmStartError, match=r"cannot be read .* export without --warm-start"):
        State(start=folder / TASTE_PART).opened()
