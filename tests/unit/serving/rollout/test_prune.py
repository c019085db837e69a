"""Pruning deletes only versions that nothing needs."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.clients.cli.main import main
from shortlist.serving.errors import RepositoryError, RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry
from shortlist.serving.rollout.prune import Decision, decide, keep_together, prune
from shortlist.serving.rollout.shards import ShardGroup
from shortlist.serving.rollout.state import ServableState, ServerState
from tests.support.paths import ROOT
from tests.unit.serving.rollout.fakes import NAME, make_fleet, publish, write_config

OLD = 10_000.0
LABELLED = (
    'model_version_policy { specific { versions: 2 } } version_labels { key: "stable" value: 2 }'
)


def state(**fields: object) -> ServableState:
    values: dict[str, object] = {
        "name": "m",
        "published": (1, 2, 3, 4, 5),
        "recorded": None,
        "servers": (),
    }
    return ServableState(**{**values, **fields})  # type: ignore[arg-type]


def server(**fields: object) -> ServerState:
    return ServerState(address="a:8500", **fields)  # type: ignore[arg-type]


def gone(of: ServableState, *, keep: int = 1, ages: dict[int, float] | None = None) -> list[int]:
    ages = dict.fromkeys(of.published, OLD) | (ages or {})
    decisions = decide(of, keep=keep, ages=ages, grace=3600)
    return [decision.version for decision in decisions if decision.delete]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (state(), [1, 2, 3, 4]),
        (state(servers=(server(available=frozenset({2})),)), [1, 3, 4]),
        (state(servers=(server(busy=frozenset({3})),)), [1, 2, 4]),
        (state(servers=(server(labels={"stable": 1}),)), [2, 3, 4]),
        (state(recorded=ModelEntry(versions=(2, 4))), [1, 3]),
        (state(recorded=ModelEntry(labels={"previous": 3})), [1, 2, 4]),
        (state(published=()), []),
    ],
)
def test_served_labelled_and_configured_versions_stay(
    of: ServableState, expected: list[int]
) -> None:
    assert gone(of) == expected


def test_the_newest_stay() -> None:
    assert gone(state(), keep=3) == [1, 2]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        gone(state(), keep=0)


@pytest.mark.parametrize("age", [0.0, 3599.0, -86_400.0])
def test_young_versions_stay_even_when_the_clock_went_back(age: float) -> None:
    assert gone(state(), ages={2: age}) == [1, 3, 4]


def aged(root: Path) -> None:
    then = time.time() - OLD
    for path in (root / NAME).iterdir():
        os.utime(path, (then, then))


def test_deleted_versions_are_gone_and_served_ones_are_not(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3, 4)
    write_config(tmp_path, LABELLED)
    fleet, _, _ = make_fleet(tmp_path, replicas=2)
    aged(tmp_path)
    decisions = prune(fleet, [NAME], keep=1, grace=3600)
    assert [decision.version for decision in decisions if decision.delete] == [1, 3]
    assert fleet.repository.versions(NAME) == [2, 4]
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == ["2", "4"]


def test_a_dry_run_deletes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3)
    write_config(tmp_path, LABELLED)
    fleet, _, _ = make_fleet(tmp_path)
    aged(tmp_path)
    assert any(one.delete for one in prune(fleet, [NAME], keep=1, grace=0, dry_run=True))
    assert fleet.repository.versions(NAME) == [1, 2, 3]


def test_nothing_is_deleted_while_a_known_server_does_not_answer(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3)
    write_config(tmp_path, LABELLED)
    fleet, servers, _ = make_fleet(tmp_path, replicas=2)
    servers[1].down = True
    with pytest.raises(RolloutError, match=r"replica-1:8500 does not answer .*--address"):
        prune(fleet, [NAME], keep=1, grace=0)
    assert fleet.repository.versions(NAME) == [1, 2, 3]


def test_nothing_is_deleted_during_a_publication(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3)
    write_config(tmp_path, LABELLED)
    fleet, _, _ = make_fleet(tmp_path)
    with (
        ModelRepository(tmp_path).publisher([NAME]),
        pytest.raises(RepositoryError, match="locked by another publisher"),
    ):
        prune(fleet, [NAME], keep=1, grace=0, lock_timeout=0.2)


def test_without_servers_and_configuration_the_newest_stay(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3)
    write_config(tmp_path, LABELLED)
    fleet, _, _ = make_fleet(tmp_path)
    fleet.config_file.path.unlink()
    prune(replace(fleet, servers=()), [NAME], keep=2, grace=0)
    assert fleet.repository.versions(NAME) == [2, 3]


PRUNER = """
import os, shutil, signal, sys
from pathlib import Path
from shortlist.serving.rollout.prune import remove_version, _remove_leftovers
from shortlist.serving.repository.local import ModelRepository

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

shutil.rmtree = kill
remove_version(ModelRepository(Path(sys.argv[1])), "retrieval_ivf", 1)
"""


def test_a_prune_that_is_killed_leaves_nothing_that_a_server_can_see(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3)
    write_config(tmp_path, LABELLED)
    done = subprocess.run(
        [sys.executable, "-c", PRUNER, str(tmp_path)], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    fleet, _, _ = make_fleet(tmp_path)
    assert fleet.repository.versions(NAME) == [2, 3]
    assert list((tmp_path / NAME).glob(".pruned-*"))
    prune(fleet, [NAME], keep=3, grace=0)
    assert not list((tmp_path / NAME).glob(".pruned-*"))


def test_the_verbs_show_and_prune_a_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, 1, 2, 3)
    config = write_config(tmp_path, LABELLED)
    options = ["--repository", str(tmp_path), "--config", str(config)]
    assert main(["versions", *options, "--servable", NAME]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        [NAME, "3", "-"],
        [NAME, "2", "stable"],
        [NAME, "1", "-"],
    ]
    report = tmp_path / NAME / "3" / contract.REPORT_FILE
    report.parent.mkdir(exist_ok=True)
    report.write_text("a page")
    assert main(["versions", *options, "--servable", NAME]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report on {NAME} 3: {report}"
    report.unlink()
    assert main(["prune", *options, "--servable", NAME, "--keep", "1", "--grace", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{NAME} 1: deleted: no server holds it and no label points at it",
        f"{NAME} 2: kept: label 'stable' in the configuration file",
        f"{NAME} 3: kept: one of the newest 1",
    ]
    assert main(["rollout", "log", "--repository", str(tmp_path)]) == 0
    assert f"{NAME}  prune 1 (keep 1, older than 0 s)  done" in capsys.readouterr().out
    assert main(["prune", *options, "--offline", "--address", "a:8500"]) == 1
    assert "contradict each other" in capsys.readouterr().err
    assert main(["versions", *options, "--servable", "nobody"]) == 1
    assert "no model 'nobody'" in capsys.readouterr().err


def test_foreign_versions_are_compared_by_what_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, 1, 2)
    assert main(["diff", "1", "2", "--repository", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "settings: the same" in out
    problem = "neither version has sample users or known queries to compare answers for"
    assert f"answers: not compared: {problem}" in out
    assert main(["diff", "1", "9", "--repository", str(tmp_path)]) == 1
    assert "has both versions 1 and 9" in capsys.readouterr().err


def test_a_version_of_one_shard_keeps_that_of_the_others() -> None:
    group = ShardGroup(servable="m_ivf", count=2)
    first, second = group.shards
    decisions = [
        Decision(name=first, version=1, delete=True, why="not needed"),
        Decision(name=first, version=2, delete=True, why="not needed"),
        Decision(name=second, version=1, delete=True, why="not needed"),
        Decision(name=second, version=2, delete=False, why="host:8500 serves it"),
        Decision(name="m_ivf", version=2, delete=True, why="not needed"),
    ]
    kept = keep_together(decisions, [group])
    assert [decision.delete for decision in kept] == [True, False, True, False, True]
    assert kept[1].why == "m_ivf_1of2 needs it: host:8500 serves it"
