"""Configuration, watcher, manager and labels together, on folders without SavedModels."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format

from shortlist.clients.types import State
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.lifecycle.core import CoreOptions, ServerCore
from shortlist.serving.embedded.lifecycle.loading import LoadRetries
from tests.support.waiting import wait_until
from tests.unit.serving.embedded.fakes import FakeLoader


class World:
    def __init__(self, root: Path, *, allow_labels: bool = False) -> None:
        self.root = root
        self.loader = FakeLoader()
        self.core = ServerCore(
            self.loader,
            CoreOptions(
                poll_interval=0.02,
                retries=LoadRetries(max_retries=0),
                allow_labels_for_unavailable=allow_labels,
            ),
        )

    def publish(self, name: str, *versions: int) -> None:
        for version in versions:
            (self.root / name / str(version)).mkdir(parents=True)

    def config(self, *models: str) -> ModelServerConfig:
        """Entries such as `m`, or `m model_version_policy { all {} }`."""
        text = "model_config_list {"
        for model in models:
            name, _, more = model.partition(" ")
            more = more if "base_path" in more else f'base_path: "{self.root}/{name}" {more}'
            has_platform = "model_platform" in more or "model_type" in more
            platform = "" if has_platform else "model_platform: 'tensorflow'"
            text += f"config {{ name: '{name}' {platform} {more} }}"
        parsed: ModelServerConfig = text_format.Parse(text + "}", ModelServerConfig())
        return parsed

    def reload(self, *models: str) -> None:
        self.core.reload(self.config(*models))

    def states(self, name: str = "m") -> dict[int, State]:
        return {status.version: status.state for status in self.core.statuses(name)}

    def served(
        self, name: str = "m", *, version: int | None = None, label: str | None = None
    ) -> int:
        with self.core.acquire(name, version=version, label=label) as servable:
            return servable.version


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.core.stop()


ALL = "model_version_policy { all {} }"
STABLE_1 = "version_labels { key: 'stable' value: 1 }"
STABLE_2 = "version_labels { key: 'stable' value: 2 }"
STABLE_9 = "version_labels { key: 'stable' value: 9 }"


def test_start_waits_for_every_model(world: World) -> None:
    world.publish("m", 1, 2)
    world.publish("other", 7)
    world.reload("m", "other")
    assert world.states() == {2: State.AVAILABLE}
    assert world.served() == 2
    assert world.served("other") == 7


def test_new_folder_replaces_the_old_version(world: World) -> None:
    world.publish("m", 1)
    world.reload("m")
    world.publish("m", 2)
    wait_until(lambda: world.states() == {2: State.AVAILABLE, 1: State.END})
    assert world.served() == 2


def test_base_path_that_disappears_unloads_nothing(world: World) -> None:
    world.publish("m", 1)
    world.reload("m")
    (world.root / "m").rename(world.root / "gone")
    world.publish("n", 1)
    with pytest.raises(StatusError, match="call ended"):
        world.core.reload(world.config("m", "n"), keep_waiting=lambda: False)
    assert world.states() == {1: State.AVAILABLE}


def test_start_fails_if_the_newest_version_fails(world: World) -> None:
    world.publish("m", 1, 3)
    world.loader.break_version("m", 3, Code.OUT_OF_RANGE, "Read less bytes than requested")
    with pytest.raises(StatusError) as caught:
        world.reload("m")
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.message == (
        "1 servable(s) did not become available: {{{name: m version: 3} due to error: "
        "OUT_OF_RANGE: Read less bytes than requested}, }"
    )


def test_reload_waits_for_new_models_and_reports_their_failure(world: World) -> None:
    world.publish("m", 1)
    world.publish("bad", 1)
    world.loader.break_version("bad", 1, Code.NOT_FOUND, "nothing here")
    world.reload("m")
    with pytest.raises(StatusError, match=r"^1 model\(s\) did not become available: "):
        world.reload("m", "bad")
    assert world.served() == 1


def test_omitted_model_is_unloaded_and_an_empty_list_unloads_all(world: World) -> None:
    world.publish("m", 1)
    world.publish("other", 1)
    world.reload("m", "other")
    world.reload("m")
    wait_until(lambda: world.states("other") == {1: State.END})
    world.reload()
    wait_until(lambda: world.states() == {1: State.END})
    world.reload("m")  # waits for new events, not for the earlier END
    assert world.served() == 1


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["m", "m"], "Illegal to list model m multiple times in config list"),
        (
            ["m base_path: 'm'"],
            r"Expected model m to have an absolute path or URI; got base_path\(\)=m",
        ),
        (
            ["m base_path: ''"],
            r"Expected model m to have an absolute path or URI; got base_path\(\)=$",
        ),
        (["m model_platform: 'other'"], "Model m requests unsupported platform other"),
        (["m model_platform: ''"], "Illegal setting neither ModelServerConfig::model_type"),
        (
            ["m model_platform: 'tensorflow' model_type: TENSORFLOW"],
            "Illegal setting both ModelServerConfig::model_type",
        ),
        (["m model_type: OTHER"], "ModelServerConfig::model_type choice 2 not supported."),
    ],
)
def test_invalid_list_is_refused(world: World, models: list[str], message: str) -> None:
    with pytest.raises(StatusError, match=message) as caught:
        world.reload(*models)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_uri_is_an_absolute_path(world: World) -> None:
    world.publish("m", 1)
    world.reload(f"m base_path: 'file://{world.root}/m'")
    assert world.served() == 1


def test_label_needs_an_available_version(world: World) -> None:
    world.publish("m", 1, 2)
    world.reload(f"m {ALL}")  # waits for one version, as the real server does
    wait_until(lambda: world.states() == dict.fromkeys((1, 2), State.AVAILABLE))
    world.reload(f"m {ALL} {STABLE_1}")
    assert world.served(label="stable") == 1
    with pytest.raises(StatusError, match="assign label to version 9 of model m") as caught:
        world.reload(f"m {ALL} {STABLE_9}")
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert world.served(label="stable") == 1
    world.reload(f"m {ALL} {STABLE_2}")
    assert world.served(label="stable") == 2
    world.reload(f"m {ALL}")
    with pytest.raises(StatusError, match="Unrecognized servable version label: stable"):
        world.served(label="stable")


def test_configuration_with_a_refused_label_changes_nothing(world: World) -> None:
    world.publish("m", 1)
    world.publish("other", 1)
    world.reload("m")
    with pytest.raises(StatusError, match="assign label"):
        world.reload(f"m {STABLE_9}", "other")
    with pytest.raises(StatusError, match="Could not find any versions of model other"):
        world.core.statuses("other")
    world.reload("m", "other")
    assert world.served("other") == 1


def test_new_label_can_wait_for_its_version_if_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, allow_labels=True)
    try:
        world.publish("m", 1)
        world.reload(f"m {ALL} {STABLE_2}")
        with pytest.raises(StatusError, match=r"Specific\(m, 2\)"):
            world.served(label="stable")
        world.publish("m", 2)
        wait_until(lambda: world.states()[2] is State.AVAILABLE if 2 in world.states() else False)
        assert world.served(label="stable") == 2
        with pytest.raises(StatusError, match="assign label to version 9"):
            world.reload(f"m {ALL} {STABLE_9}")
    finally:
        world.core.stop()


def test_dangling_label_fails_when_it_is_used(world: World) -> None:
    world.publish("m", 1, 2)
    world.reload(f"m {ALL}")  # waits for one version, as the real server does
    wait_until(lambda: world.states() == dict.fromkeys((1, 2), State.AVAILABLE))
    world.reload(f"m {ALL} {STABLE_1}")
    (world.root / "m" / "1").rmdir()
    wait_until(lambda: world.states()[1] is State.END)
    with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)"):
        world.served(label="stable")


def test_waiting_reload_gives_up_when_its_call_ends(world: World) -> None:
    """The next reload does not wait for one whose caller has gone."""
    world.publish("m", 1)
    world.reload("m")
    calls: list[int] = []

    def keep_waiting() -> bool:
        calls.append(1)
        return len(calls) < 3

    with pytest.raises(StatusError, match="call ended") as caught:
        world.core.reload(world.config("m", "absent"), keep_waiting=keep_waiting)
    assert caught.value.code is Code.CANCELLED
    world.reload("m")
    world.publish("m", 2)
    wait_until(lambda: world.served() == 2)


def test_empty_configuration_is_accepted_and_does_not_count_as_the_first(world: World) -> None:
    world.core.reload(ModelServerConfig())
    world.publish("m", 1)
    world.reload("m")
    assert world.served() == 1


def test_custom_configuration_is_refused(world: World) -> None:
    config = ModelServerConfig()
    config.custom_model_config.type_url = "x"
    with pytest.raises(StatusError, match="custom model config"):
        world.core.reload(config)
