"""Rollouts on a model of the server's rules: killed at every act, disturbed, continued."""

import json
import time
from pathlib import Path

import pytest
from google.protobuf import text_format

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, entry_of
from shortlist.serving.rollout.apply import ApplyOptions, apply
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.goals import NothingToDoError
from shortlist.serving.rollout.history import HISTORY_FILE, History
from shortlist.serving.rollout.steps import StepOptions
from tests.unit.serving.rollout.fakes import (
    NAME,
    FakeServer,
    Killed,
    Killer,
    make_fleet,
    publish,
    write_config,
)

OPTIONS = ApplyOptions(
    step=StepOptions(timeout=5, poll_interval=0.0005, settle=0.02, lock_timeout=0.2), why="test"
)
LABELLED_1 = (
    "model_version_policy { specific { versions: 1 } } "
    'version_labels { key: "stable" value: 1 } '
    'version_labels { key: "canary" value: 1 }'
)


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of steps on a disk that takes its time: what is flushed is tested elsewhere."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def labels(stable: int, canary: int, previous: int | None = None) -> dict[str, int]:
    return {"stable": stable, "canary": canary} | ({"previous": previous} if previous else {})


def setup(
    root: Path, body: str = LABELLED_1, *, versions: tuple[int, ...] = (1, 2), **options: object
) -> tuple[Fleet, list[FakeServer], Killer]:
    publish(root, *versions)
    write_config(root, body)
    fleet, servers, killer = make_fleet(root, **options)  # type: ignore[arg-type]
    return fleet, servers, killer


def run(fleet: Fleet, action: str, version: int | None = None) -> list[str]:
    return [str(step) for step in apply(fleet, NAME, action, version, options=OPTIONS).steps]


def assert_all_are_at(
    fleet: Fleet, servers: list[FakeServer], versions: set[int], at: dict[str, int]
) -> None:
    """Servers, file, and other people's settings are as they should be; nothing ever failed."""
    for server in servers:
        assert server.available == versions
        assert server.labels == at
        assert server.complaints == []
        for reload in server.reloads:
            assert_others_are_untouched(text_format.Parse(reload, ModelServerConfig()))
    config = fleet.config_file.read()
    assert entry_of(config, NAME) == ModelEntry(versions=tuple(sorted(versions)), labels=at)
    assert_others_are_untouched(config)


def assert_others_are_untouched(config: ModelServerConfig) -> None:
    own, other = config.model_config_list.config
    assert own.logging_config.log_collector_config.type == "file"
    assert other.name == "other"
    assert list(other.model_version_policy.specific.versions) == [7]
    assert dict(other.version_labels) == {"stable": 7}


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("polled", [False, True], ids=["reload", "polled file"])
def test_a_whole_life_of_versions(tmp_path: Path, polled: bool, replicas: int) -> None:
    fleet, servers, _ = setup(tmp_path, "", versions=(1,), replicas=replicas, polled=polled)
    publish(tmp_path, 2, 3)
    for server in servers:
        server.aspired, server.available = {1}, {1}  # started before 2 and 3 were published
    if polled:
        write_config(tmp_path, "model_version_policy { specific { versions: 1 } }")
    run(fleet, "canary", 2)
    assert_all_are_at(fleet, servers, {1, 2}, labels(1, 2))
    run(fleet, "promote")
    assert_all_are_at(fleet, servers, {1, 2}, labels(2, 2, 1))
    run(fleet, "canary", 3)
    assert_all_are_at(fleet, servers, {2, 3}, labels(2, 3))
    run(fleet, "abort")
    assert_all_are_at(fleet, servers, {2}, labels(2, 2))
    run(fleet, "canary", 3)
    run(fleet, "promote", 3)
    run(fleet, "rollback")
    assert_all_are_at(fleet, servers, {2}, labels(2, 2))
    run(fleet, "rollback", 1)
    assert_all_are_at(fleet, servers, {1}, labels(1, 1))
    assert all(server.refusals == 0 for server in servers) or polled


def acts_of(root: Path, polled: bool, replicas: int, verbs: list[tuple[str, int | None]]) -> int:
    fleet, _, killer = make_fleet_at(root, polled, replicas)
    killer.acts = 0
    for action, version in verbs:
        run(fleet, action, version)
    return killer.acts


def make_fleet_at(
    root: Path, polled: bool, replicas: int
) -> tuple[Fleet, list[FakeServer], Killer]:
    root.mkdir()
    return setup(root, polled=polled, replicas=replicas)


@pytest.mark.parametrize("after", ["the same", "rollback", "abort"])
@pytest.mark.parametrize("replicas", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("polled", [False, True], ids=["reload", "polled file"])
@pytest.mark.parametrize("verb", ["canary", "promote"])
def test_another_controller_continues_or_reverts_for_a_killed_one(
    tmp_path: Path, verb: str, polled: bool, replicas: int, after: str
) -> None:
    """At every act of the controller: each call to a server, each write of the file."""
    before: list[tuple[str, int | None]] = [("canary", 2)] if verb == "promote" else []
    version = 2 if verb == "canary" else None
    total = acts_of(tmp_path / "count", polled, replicas, [*before, (verb, version)])
    skip = acts_of(tmp_path / "skip", polled, replicas, before)
    killed = 0
    for at in range(1, total - skip + 1):
        fleet, servers, killer = make_fleet_at(tmp_path / str(at), polled, replicas)
        for action, number in before:
            run(fleet, action, number)
        killer.acts, killer.at = 0, at
        try:
            run(fleet, verb, version)
        except Killed:
            killed += 1
        killer.at = None
        # Another process, with nothing but the files and the servers.
        other = Fleet(
            repository=ModelRepository(tmp_path / str(at)),
            servers=fleet.servers,
            config_file=fleet.config_file,
            polled=polled,
        )
        if after == "the same":
            run(other, verb, version)
            expected = labels(1, 2) if verb == "canary" else labels(2, 2, 1)
            assert_all_are_at(other, servers, {1, 2}, expected)
        else:
            try:
                run(other, after)
            except NothingToDoError:
                # Every server had the promotion already, so no canary is left to abort; or the
                # controller was killed before it changed anything.
                if all(server.labels["stable"] == 2 for server in servers):
                    run(other, "rollback")
            assert_all_are_at(other, servers, {1}, labels(1, 1))
        assert all(server.refusals == 0 for server in servers) or polled
    assert killed == total - skip


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["canary", "promote"])
def test_a_server_that_restarts_after_any_act_comes_back_and_catches_up(
    tmp_path: Path, verb: str
) -> None:
    before: list[tuple[str, int | None]] = [("canary", 2)] if verb == "promote" else []
    version = 2 if verb == "canary" else None
    total = acts_of(tmp_path / "count", False, 2, [*before, (verb, version)])
    for at in range(1, total + 1):
        fleet, servers, killer = make_fleet_at(tmp_path / str(at), False, 2)
        for action, number in before:
            run(fleet, action, number)
        killer.at = killer.acts + at
        try:
            run(fleet, verb, version)
        except Killed:
            servers[1].ever_labelled.clear()  # its clients have gone to the other replica
            servers[1].start(fleet.config_file.path)
        killer.at = None
        run(fleet, verb, version)
        expected = labels(1, 2) if verb == "canary" else labels(2, 2, 1)
        assert_all_are_at(fleet, servers, {1, 2}, expected)


def test_nothing_is_rolled_forward_past_a_server_that_is_down(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path, replicas=3)
    servers[1].down = True
    with pytest.raises(RolloutError, match=r"1 of 3 servers do not answer \(replica-1:8500"):
        run(fleet, "canary", 2)
    assert not any(server.reloads for server in servers)


def test_on_request_a_server_that_is_down_is_skipped_and_catches_up(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path, replicas=3)
    servers[1].down = True
    options = ApplyOptions(step=OPTIONS.step, skip_unreachable=True)
    outcome = apply(fleet, NAME, "canary", 2, options=options)
    assert list(outcome.unreachable) == ["replica-1:8500"]
    servers[1].start(fleet.config_file.path)
    assert_all_are_at(fleet, servers, {1, 2}, labels(1, 2))


def test_a_server_that_is_down_does_not_prevent_a_rollback(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path, replicas=3)
    run(fleet, "canary", 2)
    run(fleet, "promote")
    servers[0].down = True
    run(fleet, "rollback")
    servers[0].start(fleet.config_file.path)
    assert_all_are_at(fleet, servers, {1}, labels(1, 1))


def test_no_label_moves_while_one_replica_lags_and_the_command_can_be_repeated(
    tmp_path: Path,
) -> None:
    fleet, servers, _ = setup(tmp_path, replicas=3)
    servers[2].stuck = {2}
    impatient = ApplyOptions(step=StepOptions(timeout=0.1, poll_interval=0.001, settle=0.01))
    with pytest.raises(RolloutError, match=r"1 of 3 servers had not applied .*replica-2:8500"):
        apply(fleet, NAME, "canary", 2, options=impatient)
    assert all(server.labels == labels(1, 1) for server in servers)
    servers[2].stuck = set()
    run(fleet, "canary", 2)
    assert_all_are_at(fleet, servers, {1, 2}, labels(1, 2))


@pytest.mark.parametrize("polled", [False, True], ids=["reload", "polled file"])
def test_a_version_that_does_not_load_is_removed_everywhere(tmp_path: Path, polled: bool) -> None:
    fleet, servers, _ = setup(tmp_path, replicas=3, polled=polled)
    servers[2].broken = {2}
    with pytest.raises(RolloutError, match=r"version 2 .* did not load on replica-2:8500: Op type"):
        run(fleet, "canary", 2)
    for server in servers:
        server.observe(NAME, [])
        server.observe(NAME, [])
    assert_all_are_at(fleet, servers, {1}, labels(1, 1))
    servers[2].start(fleet.config_file.path)  # a restart does not meet it either


def test_a_version_that_once_ran_out_of_memory_can_be_tried_again(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path)
    servers[0].broken = {2}
    with pytest.raises(RolloutError, match="did not load"):
        run(fleet, "canary", 2)
    servers[0].broken = set()
    run(fleet, "canary", 2)
    assert_all_are_at(fleet, servers, {1, 2}, labels(1, 2))


@pytest.mark.parametrize("polled", [False, True], ids=["reload", "polled file"])
def test_a_version_with_wrong_answers_gets_no_label_and_is_removed(
    tmp_path: Path, polled: bool
) -> None:
    """Without variables a version becomes AVAILABLE all the same; only requests fail."""
    fleet, servers, _ = setup(tmp_path, replicas=3, polled=polled)
    servers[1].wrong = {2}
    with pytest.raises(RolloutError, match=r"failed its check on replica-1:8500"):
        run(fleet, "canary", 2)
    for server in servers:
        server.observe(NAME, [])
    assert_all_are_at(fleet, servers, {1}, labels(1, 1))


def test_a_label_that_another_process_moves_stops_the_rollout(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path, versions=(1, 2, 3))
    real = servers[0].reload

    def reload(config: ModelServerConfig) -> None:
        real(config)
        if entry_of(config, NAME) == ModelEntry(versions=(1, 2), labels=labels(1, 2)):
            servers[0].available.add(3)
            servers[0].aspired.add(3)
            servers[0].labels = labels(3, 2, 1)

    servers[0].reload = reload  # type: ignore[method-assign]
    with pytest.raises(RolloutError, match=r"another process moved label 'stable' .* to version 3"):
        run(fleet, "canary", 2)


def test_a_file_that_another_process_changes_stops_the_rollout(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path)
    real = servers[0].reload

    def reload(config: ModelServerConfig) -> None:
        real(config)
        text = fleet.config_file.path.read_text()
        fleet.config_file.path.write_text(text.replace("value: 1", "value: 2", 1))

    servers[0].reload = reload  # type: ignore[method-assign]
    with pytest.raises(RolloutError, match=r"another process changed 'retrieval_ivf' in .*config"):
        run(fleet, "canary", 2)


def test_models_that_others_add_to_the_file_are_kept(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path)
    run(fleet, "canary", 2)
    config = fleet.config_file.read()
    config.model_config_list.config.add(
        name="third", base_path=str(tmp_path / "other"), model_platform="tensorflow"
    )
    fleet.config_file.write(config)
    run(fleet, "promote")
    names = [model.name for model in fleet.config_file.read().model_config_list.config]
    assert names == [NAME, "other", "third"]
    assert '"third"' in servers[0].reloads[-1]


@pytest.mark.parametrize("content", ["model_config_list { config { na", "nonsense {", "\x00\xff"])
def test_a_half_written_file_stops_before_anything_is_sent(tmp_path: Path, content: str) -> None:
    fleet, servers, _ = setup(tmp_path)
    fleet.config_file.path.write_text(content, encoding="latin-1")
    with pytest.raises(RolloutError, match=r"models\.config is not a model server configuration"):
        run(fleet, "canary", 2)
    assert not servers[0].reloads


def test_concurrent_rollouts_exclude_each_other(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path)
    real = servers[0].reload
    messages = []

    def reload(config: ModelServerConfig) -> None:
        real(config)
        with pytest.raises(RolloutError) as caught:
            run(fleet, "rollback", 2)
        messages.append(str(caught.value))

    servers[0].reload = reload  # type: ignore[method-assign]
    run(fleet, "canary", 2)
    assert messages
    assert all("is locked by another rollout (pid" in message for message in messages)


def test_the_log_tells_who_when_what_and_why(tmp_path: Path) -> None:
    fleet, _, _ = setup(tmp_path)
    run(fleet, "canary", 2)
    with pytest.raises(RolloutError):
        run(fleet, "canary", 1)
    records = History(tmp_path / HISTORY_FILE).read()
    assert [record["event"] for record in records] == ["begin", "step", "step", "done"]
    first, last = records[0], records[-1]
    assert first["action"] == "canary"
    assert first["why"] == "test"
    assert "@" in first["who"]
    assert first["before"]["labels"]["replica-0:8500"] == labels(1, 1)
    assert last["after"]["labels"]["replica-0:8500"] == labels(1, 2)
    assert len({record["id"] for record in records}) == 1


def test_a_failure_is_logged_with_its_reason(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path)
    servers[0].broken = {2}
    with pytest.raises(RolloutError):
        run(fleet, "canary", 2)
    assert "did not load" in History(tmp_path / HISTORY_FILE).read()[-1]["error"]


def test_a_torn_line_of_the_log_does_no_harm(tmp_path: Path) -> None:
    history = History(tmp_path / HISTORY_FILE)
    history.append({"event": "one"})
    with history.path.open("a") as stream:
        stream.write('{"event": "to')
    history.append({"event": "three"})
    assert [record["event"] for record in history.read()] == ["one", "three"]
    assert json.loads(history.path.read_text().splitlines()[-1]) == {"event": "three"}


def test_a_log_that_cannot_be_written_stops_a_rollout_but_not_a_rollback(tmp_path: Path) -> None:
    fleet, servers, _ = setup(tmp_path)
    run(fleet, "canary", 2)
    (tmp_path / HISTORY_FILE).unlink()
    (tmp_path / HISTORY_FILE).mkdir()
    with pytest.raises(RolloutError, match="cannot write"):
        run(fleet, "promote")
    assert servers[0].labels == labels(1, 2)
    run(fleet, "rollback")
    assert_all_are_at(fleet, servers, {1}, labels(1, 1))


def test_a_clock_that_jumps_does_not_end_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, servers, _ = setup(tmp_path)
    servers[0].load_looks = 20
    offsets = iter(range(0, 10**9, 10**6))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - next(offsets))
    run(fleet, "canary", 2)
    assert_all_are_at(fleet, servers, {1, 2}, labels(1, 2))
