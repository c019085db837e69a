"""Histories and features on a server that runs TensorFlow, with each transport."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import Limits, Split
from shortlist.clients.cli.main import main
from tests.integration.clients.conftest import Live, started
from tests.unit.clients.conftest import make_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IDS = [f"candidate-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def by_query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    if os.environ.get("SHORTLIST_SERVER"):
        pytest.skip("needs a servable of the tests' own; unset SHORTLIST_SERVER")
    repository = tmp_path_factory.mktemp("repository")
    folders = [str(repository / "retrieval_brute_force" / version) for version in "12"]
    command = [sys.executable, "-m", "tests.support.query_servable", *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    yield from started(repository, tmp_path_factory.mktemp("server"))


@pytest.fixture
def asked(by_query: Live, transport: str) -> Iterator[Any]:
    limits = Limits(batch_size=16)
    with make_client(transport, by_query.address(transport), limits=limits, timeout=60) as client:
        yield client


def test_the_candidates_follow_from_histories(asked: Any) -> None:
    history = [[IDS[7], IDS[2], IDS[7]], [], ["nope", IDS[9]]]
    rows = asked.retrieve(["user-1", "zoe", ""], history=history, k=3, exclude_history=False)
    assert [row.candidate_ids for row in rows] == [
        (IDS[7], IDS[2], IDS[0]),
        (IDS[0], IDS[1], IDS[2]),
        (IDS[9], IDS[0], IDS[1]),
    ]
    assert rows[0].scores == pytest.approx([1.993, 0.998, 0.0])
    assert [(row.user_id, row.known_user, row.known_history) for row in rows] == [
        *(("user-1", True, 3), ("zoe", False, 0), ("", False, 1)),
    ]


def test_ages_and_weights_arrive(asked: Any) -> None:
    (row,) = asked.retrieve(
        history=[[IDS[7], IDS[2], IDS[3]]],
        history_ages=[[20_000_001, None, 60]],
        history_weights=[[8, 1, 2]],
        k=3,
        exclude_history=False,
    )
    assert list(row) == [
        (IDS[7], pytest.approx(3.993)),
        (IDS[3], pytest.approx(1.997)),
        (IDS[2], pytest.approx(0.998)),
    ]


def test_a_history_is_excluded_with_what_else_is_excluded(asked: Any) -> None:
    rows = asked.retrieve(
        ["a", "b"], history=[IDS[:4], [IDS[5]]], exclude={"b": [IDS[0], IDS[6]]}, k=100
    )
    assert [row.candidate_ids for row in rows] == [
        tuple(IDS[4:]),
        (IDS[1], IDS[2], IDS[3], IDS[4], IDS[7], IDS[8], IDS[9]),
    ]


def test_embeddings_hold_ages_weights_and_features(asked: Any) -> None:
    rows = asked.embed(
        ["user-1", "zoe"],
        history=[[IDS[1], "nope", IDS[1]], [IDS[0]]],
        history_ages=[[60, None, 5.5], [0]],
        history_weights=[[1, 2, 0.5], [3]],
        features=[{"device": "tv", "likes": ["a", "b"]}, {}],
    )
    assert [row.values for row in rows] == [(2.0, 3.5, 65.5, 3.0), (1.0, 3.0, 0.0, 0.0)]
    assert [(row.known_user, row.known_history, row.version) for row in rows] == [
        *((True, 2, 2), (False, 1, 2)),
    ]
    (nobody,) = asked.embed(features=[{"age": 33}])
    assert nobody.values == (0.0, 0.0, 0.0, 1.0)


def test_a_large_call_is_split_by_batch_and_by_label(asked: Any) -> None:
    history = [[IDS[row % 10]] * (row % 4 + 1) for row in range(70)]
    split = Split({"stable": 0.5, "canary": 0.5})
    rows = asked.retrieve(history=history, k=1, exclude_history=False, label=split)
    assert [row.candidate_ids for row in rows] == [(events[0],) for events in history]
    assert [row.known_history for row in rows] == [len(events) for events in history]
    assert {row.label for row in rows} == {"stable", "canary"}


def test_the_command_asks_with_a_file(
    by_query: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "histories.jsonl"
    lines = [{"user_id": "user-1", "history": IDS[:2], "ages": [9, None]}, {"history": ["nope"]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    for transport in ("rest", "grpc"):
        command = ["query", "--history-file", str(path), "-k", "1", "--transport", transport]
        assert main([*command, "--address", by_query.address(transport)]) == 0
        out, err = capsys.readouterr()
        rows = [line.split() for line in out.splitlines()[1:]]
        assert [row[:3] for row in rows] == [["user-1", "1", IDS[2]], ["-", "1", IDS[0]]]
        assert "1 of 3 candidates in the history is unknown to the model" in err
