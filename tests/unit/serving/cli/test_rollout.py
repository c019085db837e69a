"""Every rollout verb in every state: exit status, labels, message, and what is written."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from google.protobuf import text_format

from shortlist.clients.cli.main import main
from shortlist.serving.repository.server_config import ModelEntry, entry_of, read_config
from shortlist.serving.rollout.steps import StepOptions
from tests.unit.serving.rollout.fakes import NAME, FakeServer, make_fleet, publish, write_config

CONFIG = "models.config"
Run = Callable[..., int]


@dataclass(frozen=True, kw_only=True)
class State:
    """A state to begin with.

    Attributes:
        served: Versions that each server holds.
        labels: Version by label on the servers and in the file.
        pinned: Whether the file names the versions; otherwise servers take the newest.
        on_disk: Versions in the repository.
        failed: Versions that do not load.
        config: Whether there is a configuration file.
    """

    served: tuple[int, ...] = (1,)
    labels: dict[str, int] = field(default_factory=dict)
    pinned: bool = True
    on_disk: tuple[int, ...] = (1, 2, 3)
    failed: tuple[int, ...] = ()
    config: bool = True

    def set_up(self, root: Path, *, replicas: int = 1) -> list[FakeServer]:
        publish(root, *{*self.on_disk, *self.served})
        versions = " ".join(f"versions: {version}" for version in self.served)
        policy = f"model_version_policy {{ specific {{ {versions} }} }} " if self.pinned else ""
        write_config(root, policy + " ".join(map(_label, self.labels.items())))
        _, servers, _ = make_fleet(root, replicas=replicas)
        for version in {*self.served} - {*self.on_disk}:
            (root / NAME / str(version)).rename(root / f"deleted-{version}")
        for server in servers:
            server.broken = set(self.failed)
            server.available = set(self.served) - set(self.failed)
            server.failed = dict.fromkeys(set(self.served) & set(self.failed), "no memory")
        if not self.config:
            (root / CONFIG).unlink()
        return servers


def _label(item: tuple[str, int]) -> str:
    return f'version_labels {{ key: "{item[0]}" value: {item[1]} }}'


NEWEST = State(served=(3,), pinned=False)
ONLY_VERSION = State(served=(1,), pinned=False, on_disk=(1,))
PINNED = State(served=(1,))
STABLE_ONLY = State(served=(1,), labels={"stable": 1})
SETTLED = State(served=(2,), labels={"stable": 2, "canary": 2})
WRITTEN_BEFORE = State(served=(2,), labels={"stable": 2, "canary": 2, "previous": 2})
CANARY = State(served=(1, 2), labels={"stable": 1, "canary": 2})
PROMOTED = State(served=(1, 2), labels={"stable": 2, "canary": 2, "previous": 1})
INTERRUPTED = State(served=(2, 3), labels={"stable": 2, "canary": 2})
STABLE_DELETED = State(
    served=(1, 2), labels={"stable": 2, "canary": 2, "previous": 1}, on_disk=(2, 3)
)
NO_CONFIG = State(served=(1,), config=False)
FAILED = State(served=(1, 2), labels={"stable": 1, "canary": 1}, failed=(2,))
BAD_CANARY = State(served=(1,), labels={"stable": 1, "canary": 1}, failed=(2,))

# (state, verb, status, labels afterwards, part of the output); labels None: nothing is written
ROWS: list[tuple[State, str, int, dict[str, int] | None, str]] = [
    # canary
    (NEWEST, "canary 3", 1, None, "version 3 of 'retrieval_ivf' already answers all requests: no"),
    (NEWEST, "canary 3", 1, None, "shortlist rollback --to 2`, then `shortlist canary 3"),
    (ONLY_VERSION, "canary 1", 1, None, "To keep it: `shortlist promote 1`\n"),
    (NEWEST, "canary 2", 0, {"stable": 3, "canary": 2}, "stable 3, canary 2 (3 steps"),
    (PINNED, "canary 2", 0, {"stable": 1, "canary": 2}, "stable 1, canary 2"),
    (STABLE_ONLY, "canary 2", 0, {"stable": 1, "canary": 2}, "stable 1, canary 2"),
    (STABLE_ONLY, "canary 1", 1, None, "version 1 of 'retrieval_ivf' is already stable"),
    (SETTLED, "canary 3", 0, {"stable": 2, "canary": 3}, "stable 2, canary 3"),
    (SETTLED, "canary 9", 1, None, "version 9 of 'retrieval_ivf' is not in the repository"),
    (CANARY, "canary 2", 0, {"stable": 1, "canary": 2}, "stable 1, canary 2 (nothing changed"),
    (CANARY, "canary 3", 1, None, "version 2 of 'retrieval_ivf' is the canary"),
    (PROMOTED, "canary 3", 0, {"stable": 2, "canary": 3}, "stable 2, canary 3"),
    (INTERRUPTED, "canary 3", 0, {"stable": 2, "canary": 3}, "stable 2, canary 3"),
    (BAD_CANARY, "canary 2", 1, {"stable": 1, "canary": 1}, "did not load on replica-0:8500"),
    # promote
    (NEWEST, "promote", 1, None, "without a label; to label it stable: `shortlist promote 3`"),
    (NEWEST, "promote 3", 0, {"stable": 3, "canary": 3}, "stable 3, canary 3"),
    (NEWEST, "promote 1", 1, None, "`shortlist rollback --to 1` moves all requests at once"),
    (NEWEST, "promote 9", 1, None, "version 9 of 'retrieval_ivf' is not in the repository"),
    (PINNED, "promote 1", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1"),
    (STABLE_ONLY, "promote", 1, None, "no canary runs, version 1 answers all requests; begin with"),
    (STABLE_ONLY, "promote 2", 1, None, "begin with `shortlist canary 2`"),
    (SETTLED, "promote", 1, None, "begin with `shortlist canary VERSION` (published: 1, 2, 3)"),
    (SETTLED, "promote 2", 0, {"stable": 2, "canary": 2}, "nothing changed"),
    (WRITTEN_BEFORE, "promote", 1, None, "no canary runs, version 2 answers all requests"),
    (CANARY, "promote", 0, {"stable": 2, "canary": 2, "previous": 1}, "stable 2, canary 2"),
    (CANARY, "promote 2", 0, {"stable": 2, "canary": 2, "previous": 1}, "previous 1 (1 step"),
    (CANARY, "promote 1", 1, None, "version 1 of 'retrieval_ivf' is not the canary (version 2 is)"),
    (PROMOTED, "promote", 0, {"stable": 2, "canary": 2, "previous": 1}, "nothing changed"),
    (INTERRUPTED, "promote", 1, None, "version 3 has no label yet: `shortlist canary 3`"),
    # rollback
    (NEWEST, "rollback", 1, None, "no earlier version is known; in the repository: 1, 2; run"),
    (NEWEST, "rollback --to 1", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1"),
    (ONLY_VERSION, "rollback", 1, None, "is known or published; publish one, then run `shortlist"),
    (PINNED, "rollback", 1, None, "run `shortlist rollback --to VERSION`"),
    (STABLE_ONLY, "rollback", 1, None, "no earlier version is known; in the repository: 2, 3"),
    (SETTLED, "rollback", 1, None, "run `shortlist rollback --to 1`"),
    (SETTLED, "rollback --to 2", 0, {"stable": 2, "canary": 2}, "nothing changed"),
    (SETTLED, "rollback --to 1", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1"),
    (SETTLED, "rollback --to 9", 1, None, "version 9 of 'retrieval_ivf' is not in the repository"),
    (WRITTEN_BEFORE, "rollback", 1, None, "no earlier version is known; in the repository: 1, 3"),
    (CANARY, "rollback", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1"),
    (PROMOTED, "rollback", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1"),
    (INTERRUPTED, "rollback", 0, {"stable": 2, "canary": 2}, "stable 2, canary 2"),
    (STABLE_DELETED, "rollback", 1, None, "choose one: `shortlist rollback --to VERSION`"),
    (BAD_CANARY, "rollback --to 2", 1, {"stable": 1, "canary": 1}, "did not load"),
    # abort
    (NEWEST, "abort", 1, None, "no canary runs, version 3 answers all requests"),
    (STABLE_ONLY, "abort", 1, None, "no canary runs, version 1 answers all requests"),
    (SETTLED, "abort", 1, None, "to serve another version: `shortlist rollback --to 1`"),
    (CANARY, "abort", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1"),
    (PROMOTED, "abort", 1, None, "to serve another version: `shortlist rollback`"),
    (INTERRUPTED, "abort", 0, {"stable": 2, "canary": 2}, "stable 2, canary 2"),
    # a version that a server could not load, left in the file
    (FAILED, "canary 2", 1, {"stable": 1, "canary": 1}, "version 2 of 'retrieval_ivf' did not lo"),
    (FAILED, "promote", 1, None, "version 2 has no label yet: `shortlist canary 2` continues"),
    (FAILED, "rollback", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1 (1 step"),
    (FAILED, "abort", 0, {"stable": 1, "canary": 1}, "stable 1, canary 1 (1 step"),
    (FAILED, "rollout status", 1, None, "version 2 did not load: no memory"),
    # no configuration file
    (NO_CONFIG, "canary 2", 1, None, "name the file that the servers were started with: --config"),
    (NO_CONFIG, "promote 1", 1, None, "cannot read"),
    (NO_CONFIG, "rollback --to 1", 1, None, "cannot read"),
    (NO_CONFIG, "abort", 1, None, "cannot read"),
    (NO_CONFIG, "rollout plan canary 2", 1, None, "cannot read"),
    # the same through `rollout`
    (NEWEST, "rollout plan rollback", 1, None, "no earlier version is known"),
    (SETTLED, "rollout apply rollback", 1, None, "no earlier version is known"),
    (SETTLED, "rollout apply promote", 1, None, "no canary runs"),
    (SETTLED, "rollout plan abort", 1, None, "no canary runs"),
    (SETTLED, "rollout plan canary 3", 0, None, "2. retrieval_ivf: label: check version 3"),
    (CANARY, "rollout apply promote", 0, {"stable": 2, "canary": 2, "previous": 1}, "stable 2"),
    (NEWEST, "rollout apply finish", 1, None, "to label it stable: `shortlist promote 3`"),
    (PROMOTED, "rollout apply finish", 0, {"stable": 2, "canary": 2}, "stable 2, canary 2"),
    (SETTLED, "rollout apply finish", 0, {"stable": 2, "canary": 2}, "nothing changed"),
    (CANARY, "rollout status", 0, None, "canary=2 stable=1"),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    soon = partial(StepOptions, settle=0.02)
    monkeypatch.setattr("shortlist.serving.cli.fleet.StepOptions", soon)
    files = ["--repository", str(tmp_path), "--config", str(tmp_path / CONFIG)]

    def run(verb: str, servers: list[FakeServer], *, everything: bool = False) -> int:
        by_address = {server.address: server for server in servers}

        def connect(address: str, **options: object) -> AbstractContextManager[FakeServer]:
            return nullcontext(by_address[address])

        monkeypatch.setattr("shortlist.serving.cli.fleet.ReplicaClient", connect)
        monkeypatch.setattr("shortlist.serving.cli.repository.ReplicaClient", connect)
        where = [word for address in by_address for word in ("--address", address)]
        options = [] if everything else ["--servable", NAME]
        options += [] if verb.startswith("prune") else ["--poll-interval", "0.001"]
        return main([*verb.split(), *files, *where, *options])

    return run


def written(root: Path) -> dict[str, bytes]:
    """Return all files; the lock of rollouts is not a result."""
    return {
        str(path): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.parametrize(
    ("state", "verb", "status", "labels", "message"),
    ROWS,
    ids=[f"{number} {row[1]}" for number, row in enumerate(ROWS)],
)
def test_verbs_say_what_they_did(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    state: State,
    verb: str,
    status: int,
    labels: dict[str, int] | None,
    message: str,
) -> None:
    servers = state.set_up(tmp_path)
    before = written(tmp_path)
    assert run(verb, servers) == status
    out, err = capsys.readouterr()
    assert message in out + err
    errors = [line for line in err.splitlines() if line.startswith("shortlist: error")]
    assert len(errors) == (0 if verb == "rollout status" else status)
    if labels is None:
        assert written(tmp_path) == before
        assert servers[0].reloads == []
        labels = state.labels
    if not state.config:
        assert servers[0].labels == labels
        return
    entry = entry_of(read_config(tmp_path / CONFIG), NAME)
    assert entry is not None
    assert servers[0].labels == entry.labels == labels
    assert servers[0].complaints == []


def only_model(root: Path, kept: str) -> None:
    """Write a configuration that has lost a model."""
    config = read_config(root / CONFIG)
    for model in list(config.model_config_list.config):
        if model.name != kept:
            config.model_config_list.config.remove(model)
    (root / CONFIG).write_text(text_format.MessageToString(config))


LOSSES: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "zero bytes",
        lambda root: (root / CONFIG).write_bytes(b""),
        "models.config lists no model; .* would unload other on replica-0:8500, replica-1:8500",
    ),
    (
        "an empty list",
        lambda root: (root / CONFIG).write_text("model_config_list { }"),
        "models.config lists no model; .* would unload other on replica-0:8500, replica-1:8500",
    ),
    (
        "a model is missing",
        lambda root: only_model(root, NAME),
        "models.config does not list other; .* would unload other on replica-0:8500, replica-1",
    ),
]


@pytest.mark.parametrize(
    "verb",
    ["canary 3", "promote", "rollback", "rollback --to 1", "abort", "rollout apply canary 3"],
)
@pytest.mark.parametrize(("about", "lose", "message"), LOSSES, ids=[row[0] for row in LOSSES])
def test_a_file_with_which_a_reload_would_unload_models_is_refused(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    about: str,
    lose: Callable[[Path], object],
    message: str,
    verb: str,
) -> None:
    """A reload replaces the whole configuration."""
    servers = CANARY.set_up(tmp_path, replicas=2)
    lose(tmp_path)
    before = written(tmp_path)
    assert run(verb, servers) == 1
    assert re.search(f"{message}.*--config FILE", capsys.readouterr().err)
    assert written(tmp_path) == before
    assert [server.reloads for server in servers] == [[], []]


def test_prune_refuses_a_file_that_lacks_the_models_of_the_servers(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = PROMOTED.set_up(tmp_path)
    (tmp_path / CONFIG).write_bytes(b"")
    before = written(tmp_path)
    assert run("prune --keep 1 --grace 0", servers) == 1
    err = capsys.readouterr().err
    assert re.search(f"lists no model; .* would unload {NAME} on replica-0", err)
    assert written(tmp_path) == before


def test_a_first_rollout_adds_the_model_to_the_file(run: Run, tmp_path: Path) -> None:
    """The servers hold other models only, all of which the file lists."""
    servers = State(served=(1,)).set_up(tmp_path)
    servers[0].available, servers[0].aspired = set(), set()
    only_model(tmp_path, "other")
    assert run("promote 1", servers) == 0
    entry = entry_of(read_config(tmp_path / CONFIG), NAME)
    assert entry == ModelEntry(versions=(1,), labels={"stable": 1, "canary": 1})
    assert servers[0].others == {"other"}


def test_status_shows_a_served_model_that_the_file_lacks(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = SETTLED.set_up(tmp_path)
    only_model(tmp_path, NAME)
    assert run("rollout status", servers, everything=True) == 1
    assert "other\n" in (out := capsys.readouterr().out)
    assert "replica-0:8500: serves this model, which the configuration file does not list" in out


def test_status_reads_a_file_without_models(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = SETTLED.set_up(tmp_path)
    (tmp_path / CONFIG).write_bytes(b"")
    assert run("rollout status", servers, everything=True) == 1
    out = capsys.readouterr().out
    assert out.count("serves this model, which the configuration file does not list") == 2


def test_of_unnamed_models_only_those_with_a_canary_are_promoted(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = CANARY.set_up(tmp_path)
    assert run("promote", servers, everything=True) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{NAME}: stable 2, canary 2, previous 1 (1 step")
    assert "skipped 'other': no canary runs, version 7 answers all requests" in err
    assert run("rollback", servers, everything=True) == 0
    capsys.readouterr()
    assert run("rollback", servers, everything=True) == 1
    err = capsys.readouterr().err
    assert f"'{NAME}': no earlier version is known" in err
    assert "'other': no earlier version is known or published" in err


DISAGREE = [
    (
        "labels",
        {"stable": 1, "canary": 1},
        {1: {"stable": 2, "canary": 2}},
        "canary 3",
        r"\(replica-0:8500: 1, replica-1:8500: 2\) before this rollout, .*rollback --to 1`",
    ),
    (
        "labels, and the file knows neither",
        {},
        {0: {"stable": 1}, 1: {"stable": 2}},
        "canary 3",
        "servers disagreed on label 'stable' .*the configuration file does not decide",
    ),
    (
        "versions",
        {},
        {},
        "canary 3",
        r"serve different versions of .* \(replica-0:8500: 1, replica-1:8500: 2\) and no label",
    ),
]


@pytest.mark.parametrize(
    ("about", "recorded", "labels", "verb", "message"), DISAGREE, ids=[row[0] for row in DISAGREE]
)
def test_servers_that_disagreed_before_are_told_and_can_be_united(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    about: str,
    recorded: dict[str, int],
    labels: dict[int, dict[str, int]],
    verb: str,
    message: str,
) -> None:
    servers = State(served=(1,), labels=recorded).set_up(tmp_path, replicas=2)
    servers[1].available, servers[1].aspired = {2}, {2}
    for number, at in labels.items():
        servers[number].labels = at
    before = written(tmp_path)
    assert run(verb, servers) == 1
    assert re.search(message, capsys.readouterr().err)
    assert written(tmp_path) == before
    assert run("rollback --to 1", servers) == 0
    assert [server.labels for server in servers] == [{"stable": 1, "canary": 1}] * 2
    assert run(verb, servers) == 0
    assert [server.labels for server in servers] == [{"stable": 1, "canary": 3}] * 2


def test_a_soak_ends_on_the_promoted_models_only(run: Run, tmp_path: Path) -> None:
    servers = CANARY.set_up(tmp_path)
    assert run("promote --soak 0", servers, everything=True) == 0
    config = read_config(tmp_path / CONFIG)
    assert entry_of(config, NAME) == ModelEntry(versions=(2,), labels={"stable": 2, "canary": 2})
    assert entry_of(config, "other") == ModelEntry(versions=(7,), labels={"stable": 7})


def test_the_latest_verb_brings_a_lagging_replica_up_to_date(run: Run, tmp_path: Path) -> None:
    servers = PROMOTED.set_up(tmp_path, replicas=2)
    servers[1].labels, servers[1].available = {"stable": 1, "canary": 1}, {1}
    assert run("promote", servers) == 0
    assert [server.labels for server in servers] == [PROMOTED.labels] * 2
    assert [server.available for server in servers] == [{1, 2}] * 2
