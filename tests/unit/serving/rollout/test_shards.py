"""Rollouts of sharded servables: all shards move, or none."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.clients.contract import shard_name
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, entry_of, write_config
from shortlist.serving.rollout.apply import ApplyOptions, apply
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import Fleet, UnreachableError
from shortlist.serving.rollout.shards import (
    ConfigFiles,
    ShardedFleet,
    ShardGroup,
    find_groups,
    rollout_name,
)
from shortlist.serving.rollout.state import ServerState
from shortlist.serving.rollout.steps import StepOptions
from tests.unit.serving.rollout.fakes import FakeConfigFile, FakeServer, Killed, Killer

GROUP = ShardGroup(servable="retrieval_ivf", count=3)
OPTIONS = ApplyOptions(
    step=StepOptions(timeout=0.5, poll_interval=0.0005, settle=0.02, lock_timeout=0.2)
)
OTHER = "other"


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@dataclass
class Host:
    """A server with some of the shards."""

    address: str
    file: Path
    shards: dict[str, FakeServer]
    after_reload: Callable[[], None] = lambda: None
    dies_at: int | None = None  # reload before which it dies
    reloads: int = 0
    down: bool = False
    configs: list[ModelServerConfig] = field(default_factory=list)

    def observe(self, name: str, labels: Iterable[str]) -> ServerState:
        self._answer()
        server = self.shards.get(name)
        if server is not None:
            return server.observe(name, labels)
        listed = any(model.name == name for model in self._last().model_config_list.config)
        held = frozenset({7}) if listed and name == OTHER else frozenset()
        return ServerState(address=self.address, available=held)

    def reload(self, config: ModelServerConfig) -> None:
        self.reloads += 1
        self.down = self.down or self.reloads == self.dies_at
        self._answer()
        self.configs.append(config)
        for server in self.shards.values():
            server.reload(config)
        self.after_reload()

    def check(self, name: str, version: int, golden: Sequence[GoldenQuery]) -> None:
        self._answer()
        self.shards[name].check(name, version, golden)

    def restart(self) -> None:
        self.dies_at, self.down = None, False
        for server in self.shards.values():
            server.start(self.file)

    def _last(self) -> ModelServerConfig:
        return self.configs[-1] if self.configs else ConfigFile(self.file).read()

    def _answer(self) -> None:
        if self.down:
            raise UnreachableError("connection refused")


@dataclass
class Service:
    fleet: ShardedFleet
    hosts: list[Host]
    killer: Killer

    @property
    def shards(self) -> dict[str, FakeServer]:
        return {name: server for host in self.hosts for name, server in host.shards.items()}

    def run(self, action: str, version: int | None = None) -> list[str]:
        outcome = apply(self.fleet, GROUP.name, action, version, options=OPTIONS)
        return [str(step.kind) for step in outcome.steps]

    def both(self) -> None:
        self.run("canary", 2)
        self.run("promote")

    def assert_at(self, versions: set[int], **labels: int) -> None:
        """Every shard is so, on its server and in its file, and no request ever failed."""
        for host in self.hosts:
            config = ConfigFile(host.file).read()
            assert [model.name for model in config.model_config_list.config][-1] == OTHER
            for name, server in host.shards.items():
                assert (server.available, server.labels) == (versions, labels)
                assert server.complaints == []
                entry = ModelEntry(versions=tuple(sorted(versions)), labels=labels)
                assert entry_of(config, name) == entry

    def check_order(self) -> None:
        """Clients that find shards at different versions ask for one that all hold."""
        up = [server for host in self.hosts if not host.down for server in host.shards.values()]
        for label in ("stable", "canary"):
            for version in {server.labels.get(label) for server in up}:
                holding = [version in server.available for server in up]
                assert version is None or all(holding), f"{label} -> {version}"


def make_service(root: Path, layout: str, *, start: ModelEntry | None = None) -> Service:
    for name in (*GROUP.shards, OTHER):
        for version in (1, 2, 3) if name != OTHER else (7,):
            variables = root / name / str(version) / "variables"
            variables.mkdir(parents=True, exist_ok=True)
            (variables.parent / "saved_model.pb").write_text("graph")
            (variables / "variables.index").write_text("index")
    entry = start or ModelEntry(versions=(1,), labels={"stable": 1, "canary": 1})
    each = [[name] for name in GROUP.shards] if layout == "server each" else [list(GROUP.shards)]
    killer, hosts = Killer(), []
    for number, names in enumerate(each):
        file = root / ".serving" / f"host{number}.config"
        if not file.exists():
            entries = {**dict.fromkeys(names, entry), OTHER: ModelEntry(versions=(7,))}
            write_config(file, root, entries)
        shards = {
            name: FakeServer(address=f"host{number}:8500", root=root, killer=killer, name=name)
            for name in names
        }
        hosts.append(Host(address=f"host{number}:8500", file=file, shards=shards))
        hosts[-1].restart()
    files = [FakeConfigFile(host.file, killer) for host in hosts]
    fleet = Fleet(
        repository=ModelRepository(root),
        servers=tuple(hosts),
        config_file=ConfigFile(files[0].path),
    )
    service = Service(ShardedFleet.of(fleet, GROUP, files), hosts, killer)
    for host in hosts:
        host.after_reload = service.check_order
    return service


layouts = pytest.mark.parametrize("layout", ["one server", "server each"])


@layouts
def test_a_whole_life_of_versions(tmp_path: Path, layout: str) -> None:
    service = make_service(tmp_path, layout)
    assert service.run("canary", 2) == ["load", "label"]
    service.assert_at({1, 2}, stable=1, canary=2)
    assert service.run("promote") == ["label"]
    service.assert_at({1, 2}, stable=2, canary=2, previous=1)
    service.run("canary", 3)
    service.assert_at({2, 3}, stable=2, canary=3)
    service.run("abort")
    service.assert_at({2}, stable=2, canary=2)
    service.run("rollback", 1)
    service.assert_at({1}, stable=1, canary=1)
    assert all(server.refusals == 0 for server in service.shards.values())


@layouts
def test_the_first_rollout_needs_no_labels(tmp_path: Path, layout: str) -> None:
    service = make_service(tmp_path, layout, start=ModelEntry(versions=(1,)))
    service.run("promote", 1)
    service.assert_at({1}, stable=1, canary=1)
    service.run("canary", 2)
    service.run("promote")
    service.run("finish")
    service.assert_at({2}, stable=2, canary=2)


@layouts
def test_a_version_that_one_shard_cannot_load_is_removed_from_all(
    tmp_path: Path, layout: str
) -> None:
    service = make_service(tmp_path, layout)
    service.shards[GROUP.shards[1]].broken = {2}
    with pytest.raises(RolloutError, match=r"retrieval_ivf_1of3: Op type.*removed again"):
        service.run("canary", 2)
    service.assert_at({1}, stable=1, canary=1)


@layouts
def test_wrong_answers_of_one_shard_move_no_label(tmp_path: Path, layout: str) -> None:
    service = make_service(tmp_path, layout)
    service.shards[GROUP.shards[2]].wrong = {2}
    with pytest.raises(RolloutError, match="failed its check"):
        service.run("canary", 2)
    service.assert_at({1}, stable=1, canary=1)


@pytest.mark.parametrize("host", [0, 1, 2])
def test_a_server_that_is_lost_while_versions_load_takes_them_back_everywhere(
    tmp_path: Path, host: int
) -> None:
    service = make_service(tmp_path, "server each")
    service.hosts[host].dies_at = 1
    with pytest.raises(RolloutError, match=r"unloaded again, and no label moved"):
        service.run("canary", 2)
    for number, other in enumerate(service.hosts):
        for server in other.shards.values():
            assert number == host or (server.available, server.labels["canary"]) == ({1}, 1)
    service.hosts[host].restart()
    service.assert_at({1}, stable=1, canary=1)
    service.run("canary", 2)
    service.assert_at({1, 2}, stable=1, canary=2)


@pytest.mark.parametrize("host", [0, 1, 2])
def test_a_server_that_is_lost_while_labels_move_is_completed_by_the_same_command(
    tmp_path: Path, host: int
) -> None:
    service = make_service(tmp_path, "server each")
    service.run("canary", 2)
    service.hosts[host].dies_at = service.hosts[host].reloads + 1
    with pytest.raises(RolloutError, match=r"Repeat the command"):
        service.run("promote")
    with pytest.raises(RolloutError, match="do not answer"):
        service.run("promote")
    service.hosts[host].restart()  # from its file: both versions, and the labels before
    service.check_order()
    service.run("promote")
    service.assert_at({1, 2}, stable=2, canary=2, previous=1)


def test_a_rollback_goes_on_without_a_lost_server_which_follows(tmp_path: Path) -> None:
    service = make_service(tmp_path, "server each")
    service.run("canary", 2)
    service.hosts[1].down = True
    service.run("rollback")
    assert service.shards[GROUP.shards[0]].labels == {"stable": 1, "canary": 1}
    service.hosts[1].restart()
    service.assert_at({1}, stable=1, canary=1)


@layouts
def test_a_controller_killed_at_any_act_is_continued_by_the_next(
    tmp_path: Path, layout: str
) -> None:
    whole = make_service(tmp_path / "whole", layout)
    whole.killer.acts = 0
    whole.run("canary", 2)
    whole.run("promote")
    acts = whole.killer.acts
    for at in range(1, acts + 1, 11):
        service = make_service(tmp_path / str(at), layout)
        service.killer.acts, service.killer.at = 0, at
        with pytest.raises(Killed):
            service.both()
        service.killer.at = None
        service.check_order()
        if service.fleet.observe(GROUP.name).state.label("stable") == 1:
            service.run("canary", 2)
        service.run("promote")
        service.assert_at({1, 2}, stable=2, canary=2, previous=1)


def test_every_shard_needs_a_server_and_a_file(tmp_path: Path) -> None:
    service = make_service(tmp_path, "server each")
    two = Fleet(
        repository=ModelRepository(tmp_path),
        servers=tuple(service.hosts[:2]),
        config_file=ConfigFile(service.hosts[0].file),
    )
    files = [ConfigFile(host.file) for host in service.hosts]
    with pytest.raises(RolloutError, match="no server holds retrieval_ivf_2of3; give the address"):
        apply(ShardedFleet.of(two, GROUP, files), GROUP.name, "canary", 2, options=OPTIONS)
    three = Fleet(
        repository=ModelRepository(tmp_path),
        servers=tuple(service.hosts),
        config_file=ConfigFile(service.hosts[0].file),
    )
    sharded = ShardedFleet.of(three, GROUP, files[:2])
    with pytest.raises(RolloutError, match=r"lists retrieval_ivf_2of3, which host2:8500 holds"):
        apply(sharded, GROUP.name, "canary", 2, options=OPTIONS)
    with pytest.raises(RolloutError, match="several --config are for sharded models"):
        ConfigFiles(files, ModelRepository(tmp_path)).write(files[0].read())


def test_a_version_that_a_shard_lacks_cannot_roll_out(tmp_path: Path) -> None:
    service = make_service(tmp_path, "one server")
    (tmp_path / GROUP.shards[1] / "2").rename(tmp_path / ".2")
    assert service.fleet.repository.versions(GROUP.name) == [1, 3]
    with pytest.raises(RolloutError, match="version 2 of 'retrieval_ivf_of3' is not in the repo"):
        service.run("canary", 2)


MODELS = ["a_ivf", *(shard_name("a_ivf", n, 2) for n in range(2)), shard_name("b", 0, 2)]
MODELS += [shard_name("c", n, count) for count in (2, 3) for n in range(count)]


@pytest.mark.parametrize(
    ("name", "rolls_out_as"),
    [
        ("a_ivf", "a_ivf"),  # there is a whole one
        ("a_ivf_1of2", "a_ivf_of2"),  # no shard moves alone
        ("a_ivf_of2", "a_ivf_of2"),
        ("b", "b"),
        ("b_0of2", "b_0of2"),  # without its sibling a model like any other
        ("c_2of3", "c_of3"),
    ],
)
def test_shards_roll_out_under_a_common_name(name: str, rolls_out_as: str) -> None:
    assert rollout_name(MODELS, name) == rolls_out_as


def test_the_common_name_of_several_groups_is_refused() -> None:
    assert [group.name for group in find_groups(MODELS)] == ["a_ivf_of2", "c_of2", "c_of3"]
    with pytest.raises(RolloutError, match="'c' is sharded as c_of2, c_of3; name one"):
        rollout_name(MODELS, "c")
    assert rollout_name(MODELS[1:3], "a_ivf") == "a_ivf_of2"


def test_several_files_are_for_sharded_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model on all servers must not get what only one of the files lists."""
    service = make_service(tmp_path, "server each")
    files = [option for host in service.hosts for option in ("--config", str(host.file))]
    where = ["--repository", str(tmp_path), "--address", "127.0.0.1:1", *files]
    assert main(["canary", "7", "--servable", OTHER, *where]) == 1
    assert "'other' is not sharded, and several --config" in capsys.readouterr().err


def test_a_name_that_claims_billions_of_shards_is_a_model_like_others() -> None:
    assert find_groups(["a_0of9999999999", "b"]) == []


def test_a_model_that_is_called_like_shards_stays_itself() -> None:
    models = ["x_0of2", "x_1of2", "x_of2", "y_0of1"]
    (group,) = find_groups(models)
    assert group.name == "x of 2"
    assert rollout_name(models, "x_of2") == "x_of2"
    assert rollout_name(models, "y_0of1") == "y_0of1"
    assert rollout_name(models, "x") == rollout_name(models, "x_0of2") == "x of 2"
