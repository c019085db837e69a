"""Shards roll out as one servable: their servers, files and folders behind the usual interfaces.

A plan for a servable on several servers loads a version on all of them before a label moves,
and moves all labels before it unloads. Here a server stands for the shards that it holds, so
the same plans move all shards or none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shortlist.clients import contract
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.golden import GoldenQuery, read_golden
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import (
    entry_of,
    server_base_path,
    with_entry,
    without_entry,
)
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import Fleet, Observation, Server
from shortlist.serving.rollout.lint import Finding, lint
from shortlist.serving.rollout.state import ServerState

__all__ = ["ConfigFiles", "ShardGroup", "ShardedFleet", "find_groups", "fleet_of", "rollout_name"]


@dataclass(frozen=True, kw_only=True)
class ShardGroup:
    """The shards of a servable.

    Attributes:
        servable: Their common name, such as `retrieval_ivf`.
        count: Number of shards.
        taken: Whether a model has the group's usual name.
    """

    servable: str
    count: int
    taken: bool = False

    @property
    def name(self) -> str:
        """Name in rollouts, such as `retrieval_ivf_of4`; one that no model has."""
        return (
            f"{self.servable} of {self.count}" if self.taken else f"{self.servable}_of{self.count}"
        )

    @property
    def shards(self) -> tuple[str, ...]:
        """Model names of the shards, in order."""
        numbers = range(self.count)
        return tuple(contract.shard_name(self.servable, number, self.count) for number in numbers)


def find_groups(models: Iterable[str]) -> list[ShardGroup]:
    """Return the groups of which all shards are among the models."""
    names = set(models)
    parts = [parts for name in sorted(names) if (parts := contract.parse_shard(name))]
    groups = [ShardGroup(servable=servable, count=count) for servable, _, count in parts]
    # A name can claim billions of shards, which are not worth listing.
    # A single one is a model that is called like a shard.
    groups = [group for group in dict.fromkeys(groups) if 1 < group.count <= len(names)]
    return [
        replace(group, taken=group.name in names)
        for group in groups
        if names.issuperset(group.shards)
    ]


def rollout_name(models: Sequence[str], name: str) -> str:
    """Return the name under which a model rolls out: that of its group for a shard.

    Args:
        models: Models of the repository.
        name: A model, a shard, or the common name of shards.

    Raises:
        RolloutError: The common name is that of several groups.
    """
    groups = find_groups(models)
    for group in groups:
        if name in (group.name, *group.shards):
            return group.name
    alike = [group.name for group in groups if group.servable == name]
    if name in models or not alike:
        return name
    if len(alike) > 1:
        raise RolloutError(f"{name!r} is sharded as {', '.join(alike)}; name one: --servable")
    return alike[0]


@dataclass(frozen=True)
class _Repository(ModelRepository):
    """A repository in which a group is one model, with the versions that all shards have."""

    group: ShardGroup

    def models(self) -> list[str]:
        others = [name for name in super().models() if name not in self.group.shards]
        return sorted([*others, self.group.name])

    def versions(self, name: str) -> list[int]:
        if name != self.group.name:
            return super().versions(name)
        own = ModelRepository(self.root)
        return sorted(set.intersection(*(set(own.versions(shard)) for shard in self.group.shards)))

    def version_path(self, name: str, version: int) -> Path:
        first = self.group.shards[0]
        return super().version_path(first if name == self.group.name else name, version)


class ConfigFiles(ConfigFile):
    """The configuration files of servers that hold different shards, or of those that hold all.

    Reads as one configuration in which a group is one model. It is recorded as the last file has
    it: files are written in order, so until all are, that is the state before the step.
    """

    def __init__(
        self,
        files: Sequence[ConfigFile],
        repository: ModelRepository,
        group: ShardGroup | None = None,
    ) -> None:
        """Take the files; without a group, only for reading."""
        super().__init__(files[0].path)
        self._files, self._repository, self._group = files, repository, group

    def read(self) -> ModelServerConfig:
        """Return the models of all files."""
        config = ModelServerConfig()
        config.model_config_list.SetInParent()
        shards = {} if self._group is None else dict.fromkeys(self._group.shards, self._group.name)
        models = [model for file in self._files for model in file.read().model_config_list.config]
        for name, model in {shards.get(model.name, model.name): model for model in models}.items():
            added = config.model_config_list.config.add()
            added.CopyFrom(model)
            added.name = name
        return config

    def write(self, config: ModelServerConfig) -> None:
        """Write the group's entry for each shard of each file."""
        for file, own in self.unfolded(config):
            file.write(own)

    def unfolded(self, config: ModelServerConfig) -> list[tuple[ConfigFile, ModelServerConfig]]:
        """Return what each file holds with the group's entry of `config`.

        Raises:
            RolloutError: There is no group.
        """
        return [(file, self.unfold(config, file)) for file in self._files]

    def unfold(self, config: ModelServerConfig, file: ConfigFile) -> ModelServerConfig:
        """Return what a file holds with the group's entry of `config` for its shards."""
        if self._group is None:
            raise RolloutError(
                "several --config are for sharded models; roll out the others with one of them"
            )
        own = file.read()
        entry = entry_of(config, self._group.name)
        for shard in self.listed(file):
            if entry is None:
                own = without_entry(own, shard)
            else:
                base_path = server_base_path(own, self._repository, shard)
                own = with_entry(own, shard, entry, base_path=base_path)
        return own

    def listed(self, file: ConfigFile) -> list[str]:
        """Return the shards that a file lists; all of them if it is the only one."""
        assert self._group is not None
        if len(self._files) == 1:
            return list(self._group.shards)
        config = file.read()
        return [shard for shard in self._group.shards if entry_of(config, shard) is not None]

    def file_of(self, address: str, shards: Sequence[str]) -> ConfigFile:
        """Return the file that a server with some shards starts from.

        Raises:
            RolloutError: No file lists all of them.
        """
        if not shards and len(self._files) > 1:
            raise RolloutError(f"{address} holds no shard, so its file is unknown; restart it")
        for file in self._files:
            if set(shards) <= set(self.listed(file)):
                return file
        raise RolloutError(
            f"no configuration file lists {', '.join(shards)}, which {address} holds; name the "
            "files of all servers: --config FILE, repeated"
        )


class _ShardServer:
    """A server whose state is that of the shards that it holds."""

    def __init__(
        self, server: Server, group: ShardGroup, files: ConfigFiles, repository: ModelRepository
    ) -> None:
        self._server, self._group, self._files = server, group, files
        self._repository = repository
        self.holds: tuple[str, ...] = ()  # once it has answered

    @property
    def address(self) -> str:
        return self._server.address

    def observe(self, name: str, labels: Iterable[str]) -> ServerState:
        if name != self._group.name:
            return self._server.observe(name, labels)
        wanted = list(labels)
        states = {
            shard: self._server.observe(shard, wanted) for shard in self.holds or self._group.shards
        }
        held = {shard: state for shard, state in states.items() if state.present or state.failed}
        self.holds = self.holds or tuple(held)
        return _joined(self.address, states if self.holds == tuple(states) else held)

    def reload(self, config: ModelServerConfig) -> None:
        file = self._files.file_of(self.address, self.holds)
        self._server.reload(self._files.unfold(config, file))

    def check(self, name: str, version: int, golden: Sequence[GoldenQuery]) -> None:
        for shard in self.holds:
            known = read_golden(self._repository.version_path(shard, version))
            self._server.check(shard, version, known)


def _joined(address: str, states: Mapping[str, ServerState]) -> ServerState:
    """Return one state for several shards: available is what all have, present what any has."""
    if not states:
        return ServerState(address=address)
    each = list(states.values())
    available = frozenset.intersection(*(state.available for state in each))
    present = frozenset.union(*(state.present for state in each))
    labels = {
        label: at
        for label, at in each[0].labels.items()
        if all(state.labels.get(label) == at for state in each)
    }
    known = frozenset.union(*(frozenset(state.labels) | state.dangling for state in each))
    failed = {
        version: f"{shard}: {reason}"
        for shard, state in states.items()
        for version, reason in state.failed.items()
    }
    return ServerState(
        address=address,
        available=available,
        busy=present - available,
        failed=failed,
        labels=labels,
        dangling=known - frozenset(labels),
    )


@dataclass(frozen=True, kw_only=True)
class ShardedFleet(Fleet):
    """Servers that together hold the shards of a group.

    Attributes:
        group: The shards.
    """

    group: ShardGroup
    all_or_none: bool = True

    @classmethod
    def of(cls, fleet: Fleet, group: ShardGroup, files: Sequence[ConfigFile]) -> "ShardedFleet":
        """Return the fleet in which the group is one servable.

        Args:
            fleet: The servers, which need not hold the same shards.
            group: The shards.
            files: Configuration files of the servers: one, or each of those that list shards.
        """
        config = ConfigFiles(files, fleet.repository, group)
        return cls(
            repository=_Repository(fleet.repository.root, group),
            servers=tuple(
                _ShardServer(server, group, config, fleet.repository) for server in fleet.servers
            ),
            config_file=config,
            polled=fleet.polled,
            group=group,
        )

    def observe(self, name: str) -> Observation:
        """Return the state of the group, or of another model.

        Raises:
            RolloutError: All servers answer, and none holds one of the shards.
        """
        observation = super().observe(name)
        if name == self.group.name and not observation.unreachable:
            for shard, addresses in self.addresses().items():
                if not addresses:
                    raise RolloutError(
                        f"no server holds {shard}; give the address of every server of "
                        f"{self.group.name}: --address HOST:PORT, repeated"
                    )
        return observation

    def addresses(self) -> dict[str, list[str]]:
        """Return the addresses of the servers of each shard, of those that have answered."""
        servers = [server for server in self.servers if isinstance(server, _ShardServer)]
        return {
            shard: [server.address for server in servers if shard in server.holds]
            for shard in self.group.shards
        }

    def lint(self, config: ModelServerConfig, current: ModelServerConfig) -> list[Finding]:
        """Return the findings about the files with the group's entry of `config`."""
        assert isinstance(self.config_file, ConfigFiles)
        repository = ModelRepository(self.repository.root)
        findings = [
            finding
            for file, own in self.config_file.unfolded(config)
            for finding in lint(own, current=file.read(), repository=repository)
        ]
        return [
            replace(finding, model=self.group.name, problem=f"{finding.model}: {finding.problem}")
            if finding.model in self.group.shards
            else finding
            for finding in findings
        ]


def fleet_of(fleet: Fleet, name: str, files: Sequence[ConfigFile]) -> Fleet:
    """Return the fleet in which a model is one, also if it is the group of a model's shards.

    Args:
        fleet: Servers and repository.
        name: Name in rollouts.
        files: Configuration files of the servers.
    """
    for group in find_groups(fleet.repository.models()):
        if group.name == name:
            return ShardedFleet.of(fleet, group, files)
    return fleet
