"""A model of TensorFlow Serving's rules for versions and labels, without any server.

It refuses, accepts and breaks what the real one does: labels are checked before versions
load; a label may be left behind by its version; a version goes only when another is
AVAILABLE; a failed version is not retried while it is asked for. Time passes with each look.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, entry_of
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import CheckError, Fleet, RefusedError, UnreachableError
from shortlist.serving.rollout.state import ServerState

NAME = "retrieval_ivf"


class Killed(BaseException):
    """The controller was killed."""


@dataclass
class Killer:
    """Kills the controller at its n-th act; counts otherwise."""

    at: int | None = None
    acts: int = 0

    def act(self) -> None:
        self.acts += 1
        if self.acts == self.at:
            raise Killed


@dataclass
class FakeServer:
    address: str
    root: Path
    load_looks: int = 1  # looks until a version is loaded
    polls: Path | None = None
    allow_unavailable_labels: bool = True
    killer: Killer = field(default_factory=Killer)
    down: bool = False
    broken: set[int] = field(default_factory=set)
    wrong: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    aspired: set[int] = field(default_factory=set)
    loading: dict[int, int] = field(default_factory=dict)
    available: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    reloads: list[str] = field(default_factory=list)
    ever_labelled: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    refusals: int = 0
    others: set[str] = field(default_factory=set)  # other models that it holds
    name: str = NAME

    def start(self, config_file: Path) -> "FakeServer":
        """Starts, or restarts, from a configuration file."""
        self.available, self.loading, self.labels = set(), {}, {}
        self.failed, self.aspired = {}, set()
        config = text_format.Parse(config_file.read_text(), ModelServerConfig())
        entry = entry_of(config, self.name)
        assert entry is not None
        self.others = _other_models(config) - {self.name}
        if entry.labels and not self.allow_unavailable_labels:
            raise AssertionError("a real server would not start: labels of unloaded versions")
        self.aspired = self._wanted(entry)
        if self.aspired & self.broken:
            raise AssertionError("a real server would not start: a version does not load")
        self.available = set(self.aspired)
        self.labels = dict(entry.labels)
        self.ever_labelled |= set(self.labels)
        self.down = False
        self._complain()
        return self

    def observe(self, name: str, labels: Iterable[str]) -> ServerState:
        self.killer.act()
        if self.down:
            raise UnreachableError("connection refused")
        if name != self.name:
            held = frozenset({7}) if name in self.others else frozenset()
            return ServerState(address=self.address, available=held)
        self._tick()
        asked = set(labels)
        known = {label: at for label, at in self.labels.items() if label in asked}
        return ServerState(
            address=self.address,
            available=frozenset(self.available),
            busy=frozenset(self.loading),
            failed=dict(self.failed),
            labels={label: at for label, at in known.items() if at in self.available},
            dangling=frozenset(label for label, at in known.items() if at not in self.available),
        )

    def reload(self, config: ModelServerConfig) -> None:
        self.killer.act()
        if self.down:
            raise UnreachableError("connection refused")
        self.reloads.append(text_format.MessageToString(config))
        self._take(config)
        self.killer.act()  # killed before it heard the answer

    def check(self, name: str, version: int, golden: Sequence[GoldenQuery]) -> None:
        self.killer.act()
        if version not in self.available or version in self.wrong:
            raise CheckError("other answers")

    def _take(self, config: ModelServerConfig) -> None:
        entry = entry_of(config, self.name)
        self.others = _other_models(config) - {self.name}
        if entry is None:
            self.aspired, self.labels = set(), {}
            self.available.clear()
            self.loading.clear()
            return
        for label, version in entry.labels.items():
            moved = label in self.labels and self.labels[label] != version
            if version not in self.available and (moved or not self.allow_unavailable_labels):
                self.refusals += 1
                raise RefusedError(
                    f"Request to assign label to version {version} of model {self.name}, which is "
                    "not currently available for inference"
                )
        self.labels = dict(entry.labels)
        self.ever_labelled |= set(self.labels)
        before, self.aspired = self.aspired, self._wanted(entry)
        for version in self.aspired - self.available - set(self.loading):
            if version not in before or version not in self.failed:
                self.failed.pop(version, None)
                self.loading[version] = self.load_looks
        self._tick()

    def _tick(self) -> None:
        """A moment passes."""
        if self.polls is not None:
            try:
                config = text_format.Parse(self.polls.read_text(), ModelServerConfig())
                polls, self.polls = self.polls, None
                try:
                    self._take(config)
                finally:
                    self.polls = polls
            except (RefusedError, text_format.ParseError):
                pass  # the real server writes a line into its log
        for version in list(self.loading):
            if version in self.stuck:
                continue
            self.loading[version] -= 1
            if self.loading[version] < 0:
                del self.loading[version]
                if version in self.broken:
                    self.failed[version] = "Op type not registered"
                else:
                    self.available.add(version)
        for version in list(self.loading):
            if version not in self.aspired:
                del self.loading[version]
        unwanted = self.available - self.aspired
        if self.available - unwanted:
            self.available -= unwanted
        self._complain()

    def _wanted(self, entry: ModelEntry) -> set[int]:
        published = set(ModelRepository(self.root).versions(self.name))
        if entry.versions is None:
            return {max(published)}
        return set(entry.versions) & published

    def _complain(self) -> None:
        """Once a label is there, requests for it come all the time, and none may fail.

        None comes for `previous`, which goes with the version before stable.
        """
        for label in self.ever_labelled - {"previous"}:
            if label not in self.labels:
                self.complaints.append(f"{self.address}: label {label} is gone")
            elif self.labels[label] not in self.available:
                self.complaints.append(
                    f"{self.address}: label {label} -> {self.labels[label]} is not loaded"
                )


def _other_models(config: ModelServerConfig) -> set[str]:
    return {model.name for model in config.model_config_list.config}


class FakeConfigFile(ConfigFile):
    """Kills the controller before or after it writes."""

    def __init__(self, path: Path, killer: Killer) -> None:
        super().__init__(path)
        self._killer = killer

    def write(self, config: ModelServerConfig) -> None:
        self._killer.act()
        super().write(config)
        self._killer.act()


def publish(root: Path, *versions: int) -> None:
    for version in versions:
        variables = root / NAME / str(version) / "variables"
        variables.mkdir(parents=True)
        (variables.parent / "saved_model.pb").write_text("graph")
        (variables / "variables.index").write_text("index")


def write_config(root: Path, body: str = "") -> Path:
    """A configuration with the servable and with a model and settings of another team."""
    (root / "other" / "7" / "variables").mkdir(parents=True, exist_ok=True)
    (root / "other" / "7" / "saved_model.pb").write_text("graph")
    (root / "other" / "7" / "variables" / "variables.index").write_text("index")
    path = root / "models.config"
    path.write_text(
        f'model_config_list {{ config {{ name: "{NAME}" base_path: "{root / NAME}" '
        'model_platform: "tensorflow" '
        'logging_config { log_collector_config { type: "file" } } '
        f"{body} }} "
        f'config {{ name: "other" base_path: "{root / "other"}" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 7 } } "
        'version_labels { key: "stable" value: 7 } } }'
    )
    return path


def make_fleet(
    root: Path, *, replicas: int = 1, polled: bool = False, config: Path | None = None
) -> tuple[Fleet, list[FakeServer], Killer]:
    killer = Killer()
    path = config or root / "models.config"
    servers = [
        FakeServer(
            address=f"replica-{number}:8500",
            root=root,
            killer=killer,
            load_looks=1 + number,
            polls=path if polled else None,
        ).start(path)
        for number in range(replicas)
    ]
    fleet = Fleet(
        repository=ModelRepository(root),
        servers=tuple(servers),
        config_file=FakeConfigFile(path, killer),
        polled=polled,
    )
    return fleet, servers, killer
