"""Two versions' answers to recorded queries."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shortlist.clients.types import Retrieval
from shortlist.export.data.outcomes import Outcomes
from shortlist.export.replay.compare import Comparison, kendall
from shortlist.export.replay.outcomes import Join
from shortlist.export.replay.page import render_replay
from shortlist.export.replay.result import OutcomeFigures, Replay
from shortlist.export.replay.sides import Answered
from shortlist.serving.request_log.queries import RecordedQuery
from shortlist.serving.rollout.judge.measures import Limits


class Scripted:
    """Answers users by a table; an exception's text is an error."""

    def __init__(self, name: str, lists: Mapping[str, Sequence[str] | str]) -> None:
        self.name = name
        self.lists = lists
        self.asked: list[Mapping[str, Any]] = []

    def ask(self, arguments: Mapping[str, Any]) -> Answered:
        self.asked.append(arguments)
        (user,) = arguments["user_ids"]
        found = self.lists[user]
        if isinstance(found, str):
            return Answered(error=found, seconds=0.001)
        return Answered(candidate_ids=tuple(found), known_user=user != "new", seconds=0.001)

    def close(self) -> None:
        pass


def query(user: str, **arguments: Any) -> RecordedQuery:
    return RecordedQuery(
        model="m",
        arguments={"user_ids": [user], **arguments},
        answer=Retrieval(user_id=user, candidate_ids=(), scores=()),
        time=100.0,
        latency=None,
    )


FIRST = {"same": "abcd", "moved": "abcd", "other": "abcd", "gone": "ab", "new": "", "bad": "abc"}
SECOND = {"same": "abcd", "moved": "badc", "other": "awxy", "gone": "", "new": "", "bad": "abc"}


def lists(table: Mapping[str, str]) -> dict[str, Sequence[str] | str]:
    return {user: list(text) for user, text in table.items()}


def compared(second: Mapping[str, Sequence[str] | str], **options: Any) -> Comparison:
    sides = Scripted("m/1", lists(FIRST)), Scripted("m/2", second)
    comparison = Comparison(sides, k=None, limits=Limits(), title_of=str.upper, **options)
    for user in FIRST:
        comparison.add(query(user, history=[["x", "y"]]))
    return comparison


def test_lists_are_compared_user_by_user() -> None:
    found = compared({**lists(SECOND), "bad": "NOT_FOUND: x"}).figures()
    first, second = found["sides"]
    assert (first.name, first.failed, first.empty, first.unknown_users) == ("m/1", 0, 1, 1)
    assert (second.failed, dict(second.errors)) == (1, {"NOT_FOUND: x": 1})
    assert (second.empty, second.distinct) == (2, 7)
    assert found["new_empty"] == 1
    # Of the lists that both answered and the first has candidates for: 1, 1, 1/4 and 0.
    assert found["overlap"] == pytest.approx(2.25 / 4)
    assert found["overlaps"] == (1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2)
    assert found["same_lists"] == 0.25
    assert found["rank_correlation"] == pytest.approx((1 + kendall("abcd", "badc")) / 2)


def test_the_most_different_lists_come_first_with_titles() -> None:
    found = compared(lists(SECOND), shown=2).figures()
    changed = found["changed"]
    assert [entry.user_id for entry in changed] == ["gone", "other"]
    assert changed[1].before == ["A", "B", "C", "D"]
    assert changed[1].after == ["A", "W", "X", "Y"]
    assert changed[1].history == ["X", "Y"]


def test_limits_are_those_of_the_judge() -> None:
    limits = {limit.name: limit for limit in compared(lists(SECOND)).limits(None, 0.1)}
    assert set(limits) == {"errors", "slow requests", "empty answers", "overlap@10"}
    assert limits["errors"].kept
    assert not limits["empty answers"].kept  # one of six
    assert limits["overlap@10"].kept
    # Over the five lists of the first that are not empty, "bad" among them.
    assert limits["overlap@10"].second == pytest.approx(3.25 / 5)


def test_k_is_asked_for_if_it_is_chosen() -> None:
    side = Scripted("m", lists(FIRST))
    comparison = Comparison((side, side), k=2, limits=Limits())
    comparison.warm_up([query("same", k=7), query("same", k=7), query("other")])
    comparison.add(query("same", k=7))
    assert [asked["k"] for asked in side.asked] == [2] * 6
    assert comparison.figures()["sides"][0].distinct == 2


def test_a_failed_query_has_no_hits() -> None:
    """Else a version would be judged by the queries that it answers."""
    outcomes = Outcomes(
        users={"bad": 0},
        starts=np.array([0, 1]),
        times=np.array([110]),
        candidates=np.array([0], np.int32),
        candidate_ids=("a",),
    )
    join = Join(outcomes, window=60.0)
    join.observe("bad", 100.0)
    compared({**lists(SECOND), "bad": "NOT_FOUND: x"}, join=join)
    figures = join.figures(())
    assert figures is not None
    assert figures.hit_rates == (1.0, 0.0, 0.0)


def test_kendall_counts_pairs_in_the_same_order() -> None:
    assert kendall("abc", "abc") == 1.0
    assert kendall("abc", "cba") == -1.0
    assert kendall("abcx", "bayc") == pytest.approx(1 / 3)


def test_the_page_escapes_and_tells_everything() -> None:
    comparison = compared({**lists(SECOND), "bad": "<script>"})
    replay = Replay(
        log="logs",
        model="m",
        how="offline",
        queries=6,
        recorded=60,
        first_time=100.0,
        last_time=200.0,
        outcomes=None,
        limits=comparison.limits(None, 0.1),
        left_out={"not a retrieval": 3},
        **comparison.figures(),
    )
    page = render_replay(replay)
    for text in (
        "a sample of 6 of 60 recorded queries",
        "m/2 is worse than allowed",
        "Not asked: 3",
    ):
        assert text in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "Outcomes" not in page
    figures = OutcomeFigures(
        method="plain",
        window=7200.0,
        interactions=5,
        users=1,
        hit_rates=(0.2, 0.4, 0.2),
        intervals=(None, None, None),
        difference=0.2,
        difference_interval=None,
        notes=("users saw the recorded lists alone",),
    )
    page = render_replay(replace(replay, outcomes=figures))
    assert "5 interactions of 1 user within 2 h" in page
    assert "Users saw the recorded lists alone." in page
