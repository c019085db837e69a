"""Shards in the gates: which share a server, and the quality of the whole that they make up."""

from dataclasses import replace
from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.clients.types import Signature
from shortlist.export.gates import shards
from shortlist.export.gates.comparable import JudgedUser
from shortlist.export.gates.quality import Comparison
from shortlist.export.gates.questions import Answer
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.shards import (
    check_whole_quality,
    merge_answers,
    on_one_server,
    without_partial,
)
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving.repository.version import GateResult, Headline, Manifest, Shard, Verdict
from shortlist.serving.servers.check import FreshServable

SIGNATURES = {contract.RETRIEVE: Signature(inputs={}, outputs={}, method_name="")}
COMPARISON = Comparison(
    headline=Headline(metric="hit_rate@2", protocol="seen_excluded", value=0.25),
    live=1,
    live_headline=None,
    users=tuple(JudgedUser(user_id=f"u{number}", held_out=("a", "b")) for number in range(60)),
)


def subject(name: str, path: Path, *, live: int | None = 1) -> Subject:
    parts = contract.parse_shard(name)
    part = None if parts is None else Shard(number=parts[1], count=parts[2])
    return Subject(
        name=name,
        version=2,
        path=path,
        manifest=Manifest(shard=part),
        golden=(),
        probe=None,
        corpus=None,
        sample=None,
        live=None if live is None else Live(version=live, path=path),
    )


def answer(ids: list[str], scores: list[float]) -> Answer:
    return {contract.CANDIDATE_IDS: [ids] * 60, contract.SCORES: [scores] * 60}


def test_large_shards_get_a_server_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["m_ivf_0of2", "m_scann_0of2", "m_ivf_1of2", "m_scann_1of2"]
    subjects = [subject(name, tmp_path) for name in names]
    assert on_one_server(subjects) == [subjects]
    assert on_one_server([]) == []
    monkeypatch.setattr(shards, "_FITS_BYTES", -1)
    assert on_one_server(subjects) == [subjects[:2], subjects[2:]]
    whole = [subject("m_ivf", tmp_path), subject("m_scann", tmp_path)]
    assert on_one_server(whole) == [whole]


def test_answers_are_merged_by_score_and_shard() -> None:
    first, second = answer(["a", "b"], [3.0, 1.0]), answer(["c", "d"], [3.0, 2.0])
    (merged,) = merge_answers([[first], [second]])
    assert not isinstance(merged, str)
    assert merged[contract.CANDIDATE_IDS][0] == ["a", "c", "d", "b"]
    assert merge_answers([[first], ["no such signature"]]) == ("no such signature",)
    assert merge_answers([[first]]) == (first,)


def test_a_shard_alone_and_shards_of_different_live_versions_are_not_compared(
    tmp_path: Path,
) -> None:
    def reasons(*subjects: Subject) -> list[str]:
        plans = {own.name: COMPARISON for own in subjects}
        found = without_partial(plans, subjects).values()
        return [plan.measured if isinstance(plan, GateResult) else "compared" for plan in found]

    both = [subject("m_ivf_0of2", tmp_path), subject("m_ivf_1of2", tmp_path)]
    assert reasons(*both, subject("m_ivf", tmp_path)) == ["compared"] * 3
    assert "shard 0 of 2 alone" in reasons(both[0])[0]
    older = subject("m_ivf_1of2", tmp_path, live=0)
    assert "different versions: 1, 0" in reasons(both[0], older)[0]
    first = subject("m_ivf_1of2", tmp_path, live=None)
    assert "different versions: 1, none" in reasons(both[0], first)[0]


def test_quality_is_that_of_all_shards_together(tmp_path: Path) -> None:
    """The held-out a and b are in the top 2 of their shards, but not both in that of the whole."""
    both = [subject("m_ivf_0of2", tmp_path), subject("m_ivf_1of2", tmp_path)]
    good = {
        "m_ivf_0of2": [answer(["a", "x"], [9.0, 1.0])],
        "m_ivf_1of2": [answer(["b", "y"], [8.0, 1.0])],
    }
    poor = {**good, "m_ivf_1of2": [answer(["y", "b"], [8.0, 1.0])]}
    loaded = FreshServable(signatures=SIGNATURES)
    fresh = dict.fromkeys(good, loaded)

    def judged(new: dict[str, list[Answer]], old: dict[str, list[Answer]]) -> list[GateResult]:
        live = {name: replace(loaded, answers=tuple(rows)) for name, rows in old.items()}
        return [
            check_whole_quality(COMPARISON, own, both, new.__getitem__, fresh, live, GateSettings())
            for own in both
        ]

    same, worse = judged(good, good), judged(poor, good)
    assert [result.verdict for result in same] == [Verdict.PASSED] * 2
    assert "1.0000" in same[0].measured
    assert [result.verdict for result in worse] == [Verdict.FAILED] * 2
    assert worse[0] == worse[1]
    assert "0.5000, version 1: 1.0000" in worse[0].measured
