"""The gate `quality`: what is comparable, what both versions are asked, and who passes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.clients.types import Signature
from shortlist.export.gates.comparable import JudgedUser
from shortlist.export.gates.quality import (
    Comparison,
    check_quality,
    compare_hits,
    plan_comparison,
)
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, Subject
from shortlist.serving.repository.probe import (
    Interaction,
    SampledUser,
    UserSample,
    write_corpus,
    write_user_sample,
)
from shortlist.serving.repository.version import (
    GateResult,
    Headline,
    Manifest,
    Verdict,
    write_manifest,
)
from shortlist.serving.servers.check import FreshServable

SETTINGS = GateSettings()
CORPUS = ["a", "b", "c", "d", "e"]
NO_TENSORS = Signature(inputs={}, outputs={}, method_name="")
SIGNATURES = {contract.RETRIEVE: NO_TENSORS}


def manifest(protocol: str = "seen_excluded", *, as_served: bool = False) -> Manifest:
    """A manifest; versions that are judged as served take histories."""
    headline = Headline(metric="hit_rate@2", protocol=protocol, value=0.25, as_served=as_served)
    metrics = {"headline": headline.as_json(), "held_out": {"interactions": 1240, "repeats": 6}}
    signatures: dict[str, Any] = {contract.RETRIEVE_BY_QUERY: {}} if as_served else {}
    return Manifest(metrics=metrics, created="2026-11-28", signatures=signatures)


def many(user: SampledUser, count: int = 120) -> UserSample:
    """The same interactions for many users, so that there are enough."""
    return UserSample(bound=2**64, users={f"user {number}": user for number in range(count)})


def subject(
    path: Path,
    own: SampledUser | UserSample,
    live: SampledUser | UserSample | None = None,
    *,
    corpora: tuple[Sequence[str], Sequence[str]] = (CORPUS, CORPUS),
    protocol: str = "seen_excluded",
    as_served: bool = False,
) -> Subject:
    """A version 2 with a live version 1 whose sample has the same users."""
    if live is not None:
        write_user_sample(path, many(live) if isinstance(live, SampledUser) else live)
        write_corpus(path, corpora[1])
        write_manifest(path, manifest(as_served=as_served))
    return Subject(
        name="retrieval_ivf",
        version=2,
        path=path,
        manifest=manifest(protocol, as_served=as_served),
        golden=(),
        probe=None,
        corpus=list(corpora[0]),
        sample=many(own) if isinstance(own, SampledUser) else own,
        live=None if live is None else Live(version=1, path=path),
    )


def planned(subject: Subject) -> Comparison:
    comparison = plan_comparison(subject, SETTINGS)
    assert isinstance(comparison, Comparison), comparison
    return comparison


def skipped(subject: Subject) -> str:
    result = plan_comparison(subject, SETTINGS)
    assert isinstance(result, GateResult)
    assert (result.gate, result.verdict) == ("quality", Verdict.SKIPPED)
    return result.measured


def user(fitted: Sequence[Interaction], held_out: Sequence[Interaction] = ()) -> SampledUser:
    return SampledUser(fitted=tuple(fitted), held_out=tuple(held_out))


def test_only_what_neither_version_was_trained_on_counts(tmp_path: Path) -> None:
    """The live version may come from other data, in another order, split by another seed."""
    own = user([(0, 1)], [(1, 2), (2, 3), (3, 4), (0, 5)])  # a | b c d, and a again
    live = user([(2, 3), (3, 9)], [(0, 1)])  # of c b a d e: a d | c
    comparison = planned(subject(tmp_path, own, live, corpora=(CORPUS, ["c", "b", "a", "d", "e"])))
    assert len(comparison.users) == 120
    first = comparison.users[0]
    assert first.held_out == ("b", "c")
    assert first.exclude == ("a", "d")  # whatever either was trained on
    assert comparison.num_interactions == 240


@pytest.mark.parametrize(
    ("live", "held_out"),
    [
        # A repeated candidate counts if neither was trained on the interaction itself.
        (user([(0, 1)]), ("b", "a")),
        (user([(1, 2)]), ("a",)),
        # Without times, a repeated interaction cannot be told from the one trained on.
        (user([(1, None)]), ()),
    ],
)
def test_with_seen_candidates_kept_the_interaction_counts_not_the_candidate(
    tmp_path: Path, live: SampledUser, held_out: tuple[str, ...]
) -> None:
    own = user([(0, 1)], [(1, 2), (0, 5)])
    version = subject(tmp_path, own, live, protocol="seen_kept")
    if held_out:
        first = planned(version).users[0]
        assert (first.held_out, first.exclude) == (held_out, ())
    else:
        assert skipped(version).startswith("only 0 comparable interactions of 0 users")


def test_questions_as_served_carry_the_history_before_each_interaction(tmp_path: Path) -> None:
    """They contain no user id, so that what a version keeps of its users does not matter."""
    own = user([(4, 10), (0, 20)], [(2, 50), (1, 30), (2, 40), (3, 60)])
    live = user([(3, 60)])
    comparison = planned(subject(tmp_path, own, live, as_served=True))
    assert [
        ("".join(event[0] for event in asked.history), asked.held_out, asked.exclude)
        for asked in comparison.users
        if asked.user_id == "user 7"
    ] == [("ea", ("b",), ()), ("eab", ("c",), ())]  # c again is in the history; live knows d
    assert (comparison.num_users, comparison.num_interactions) == (120, 240)
    first, *_, last = comparison.queries()
    assert {query.signature for query in comparison.queries()} == {contract.RETRIEVE_BY_QUERY}
    assert first.inputs[contract.USER_ID] == [""] * 100
    assert first.inputs[contract.HISTORY][0] == ["e", "a"]
    assert first.inputs[contract.HISTORY_AGE][0] == [10.0, 0.0]
    assert last.inputs[contract.HISTORY_AGE][-1] == [20.0, 10.0, 0.0]
    assert first.inputs[contract.EXCLUDE_HISTORY] is True
    assert first.inputs[contract.EXCLUDE_SEEN] is False
    assert first.inputs[contract.HISTORY_WEIGHT] == first.inputs[contract.FEATURES] == [[]] * 100


def test_a_new_user_gets_one_question_with_what_was_given(tmp_path: Path) -> None:
    for times in (True, False):
        given, held_out = (
            [(candidate, time if times else None) for candidate, time in part]
            for part in ([(4, 30), (0, 20)], [(1, 10), (2, 40), (0, 50)])
        )
        own = SampledUser(given=tuple(given), held_out=tuple(held_out))
        for protocol, expected in (("seen_excluded", "bc"), ("seen_kept", "bca")):
            version = subject(tmp_path, own, user([]), protocol=protocol, as_served=True)
            asked = planned(version).users[0]
            assert "".join(asked.held_out) == expected
            assert "".join(event[0] for event in asked.history) == ("ae" if times else "ea")


def test_versions_that_take_no_histories_are_compared_by_user_id(tmp_path: Path) -> None:
    own = user([(0, 20)], [(1, 30), (2, 40)])
    version = subject(tmp_path, own, user([]), as_served=True)
    write_manifest(tmp_path, manifest())
    comparison = planned(version)
    assert comparison.signature == contract.RETRIEVE
    assert comparison.headline.name == "hit_rate@2 (seen excluded)"
    assert [asked.held_out for asked in comparison.users] == [("b", "c")] * 120


def test_hits_of_several_questions_of_a_user_count_together(tmp_path: Path) -> None:
    own = user([(0, 20)], [(1, 30), (2, 40)])
    comparison = planned(subject(tmp_path, own, user([]), as_served=True))
    rows = [
        list(asked.held_out) if asked.user_id in ("user 3", "user 5") else ["x"]
        for asked in comparison.users
    ]
    hits = comparison.hits(rows)
    assert len(hits) == 120
    assert sorted(hits.tolist())[-3:] == [0, 2, 2]


def test_users_of_unknown_training_are_not_compared(tmp_path: Path) -> None:
    from shortlist.export.data.fingerprint import hash_ids

    ids = sorted((f"user {number}" for number in range(400)), key=lambda one: hash_ids([one])[0])
    own = UserSample(bound=2**64, users=dict.fromkeys(ids, user([(0, 1)], [(1, 2)])))
    full = UserSample(bound=int(hash_ids([ids[200]])[0]), left_out=frozenset(ids[:9]), users={})
    comparison = planned(subject(tmp_path, own, full))
    # Users below the bound without interactions are new to the live version.
    assert [user.user_id for user in comparison.users] == ids[9:200]
    assert comparison.users[0].exclude == ("a",)


def test_reasons_for_no_comparison(tmp_path: Path) -> None:
    own, live = user([(0, 1)], [(1, 2)]), user([(0, 1)])
    version = subject(tmp_path / "1", own, live)
    assert skipped(replace(version, live=None)) == (
        "no live version to compare with; hit_rate@2 (seen excluded) 0.2500 on 1,234 held-out "
        "interactions"
    )
    assert skipped(replace(version, sample=None)) == (
        "the version does not record what it was trained on (exported by an earlier release)"
    )
    assert skipped(replace(version, manifest=Manifest())) == "the manifest has no headline metric"
    write_manifest(tmp_path / "old", manifest())
    assert skipped(replace(version, live=Live(version=3, path=tmp_path / "old"))) == (
        "version 3 does not record what it was trained on (exported by an earlier release)"
    )
    assert skipped(replace(version, live=Live(version=3, path=tmp_path / "foreign"))) == (
        "version 3 does not record what it was trained on (not exported by Shortlist)"
    )
    few = subject(tmp_path / "2", many(own, 19), many(live, 19))
    assert skipped(few) == (
        "only 19 comparable interactions of 19 users for version 1; 100 interactions of 20 users "
        "are needed"
    )
    (tmp_path / "2" / contract.USERS_FILE).write_bytes(b"torn")
    assert "shortlist_users.jsonl.gz cannot be read" in skipped(
        replace(version, live=Live(version=1, path=tmp_path / "2"))
    )


def test_requests_are_padded_little_and_ask_for_the_metric(tmp_path: Path) -> None:
    users = [
        JudgedUser(user_id=str(count), exclude=("a",) * count, held_out=("b",))
        for count in [0] * 150 + [3] + [400] * 130 + [60_000]
    ]
    comparison = replace(
        planned(subject(tmp_path, user([], [(1, 2)]), user([]))), users=tuple(users)
    )
    queries = comparison.queries()
    assert [user for query in queries for user in query.inputs[contract.USER_ID]] == [
        user.user_id for user in users
    ]
    cells = [
        (len(query.inputs[contract.EXCLUDE]), {len(row) for row in query.inputs[contract.EXCLUDE]})
        for query in queries
    ]
    assert all(len(widths) == 1 for _, widths in cells)
    assert all(rows == 1 or rows * max(widths) <= 50_000 for rows, widths in cells)
    assert {query.inputs[contract.K] for query in queries} == {2}
    assert {query.signature for query in queries} == {contract.RETRIEVE}
    assert len(queries) == 4


def result(
    new_hits: Sequence[int],
    live_hits: Sequence[int],
    *,
    held_out: int = 4,
    protocol: str = "seen_excluded",
    live: FreshServable | None = None,
    limit: float = 0.1,
) -> GateResult:
    """Result for users with `held_out` interactions each, of which some are hits."""
    letters = CORPUS[:held_out]
    comparison = Comparison(
        headline=Headline(metric="hit_rate@4", protocol=protocol, value=0.5),
        live=3,
        live_headline=manifest().headline,
        users=tuple(
            JudgedUser(user_id=str(number), exclude=(), held_out=tuple(letters))
            for number in range(len(new_hits))
        ),
    )

    def answers(hits: Sequence[int]) -> tuple[Mapping[str, Any], ...]:
        rows = [[*letters[:count], *["x"] * (4 - count)] for count in hits]
        return ({contract.CANDIDATE_IDS: rows},)

    return check_quality(
        comparison,
        FreshServable(signatures=SIGNATURES),
        answers(new_hits),
        live or FreshServable(signatures=SIGNATURES, answers=answers(live_hits)),
        GateSettings(max_quality_drop=limit),
    )


def test_an_equal_version_passes_and_the_text_says_what_was_measured() -> None:
    passed = result([2] * 50 + [1], [2] * 50 + [1])
    assert passed.verdict is Verdict.PASSED
    assert passed.measured == (
        "hit_rate@4 (seen excluded) 0.4951, version 3: 0.4951, change +0.0% [+0.0%, +0.0%], "
        "on 204 interactions of 51 users that neither was trained on"
    )
    assert passed.required == "upper end of the change's 95% interval >= -10%"


def test_another_protocol_of_the_live_version_is_named() -> None:
    passed = result([2] * 50, [2] * 50, protocol="seen_kept")
    assert passed.measured.startswith("hit_rate@4 (seen kept) 0.5000, version 3: 0.5000")
    assert passed.measured.endswith("; version 3 is meant for hit_rate@2 (seen excluded)")


@pytest.mark.parametrize(
    ("lost", "limit", "verdict"),
    [
        (0, 0.1, Verdict.PASSED),
        (20, 0.1, Verdict.PASSED),  # 10 % of 200 hits: not more than the limit
        (25, 0.1, Verdict.PASSED),  # 12 % may be chance
        (60, 0.1, Verdict.FAILED),
        (25, 0.01, Verdict.FAILED),
        (60, 0.5, Verdict.PASSED),
        (60, 1.0, Verdict.PASSED),
    ],
)
def test_only_a_certain_drop_of_more_than_the_limit_fails(
    lost: int, limit: float, verdict: Verdict
) -> None:
    new = [1] * lost + [2] * (100 - lost)
    assert result(new, [2] * 100, limit=limit).verdict is verdict


def test_few_hits_of_the_live_version_decide_nothing() -> None:
    few = result([0] * 50, [1] * 19 + [0] * 31)
    assert few.verdict is Verdict.SKIPPED
    assert few.measured == (
        "version 3 has only 19 hits in 200 comparable interactions of 50 users; 20 are needed to "
        "tell versions apart"
    )
    assert result([0] * 50, [1] * 20 + [0] * 30).verdict is Verdict.FAILED
    assert result([1] * 50, [0] * 50).verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("live", "measured"),
    [
        (FreshServable(error="NOT_FOUND: variables"), "does not load: NOT_FOUND: variables"),
        (FreshServable(answers=("no signature 'retrieve'",)), "answer: no signature 'retrieve'"),
        (FreshServable(answers=({"scores": []},)), "answer: no output 'candidate_ids'"),
    ],
)
def test_a_live_version_that_cannot_be_asked_is_not_compared(
    live: FreshServable, measured: str
) -> None:
    skipped = result([1] * 50, [1] * 50, live=live)
    assert skipped.verdict is Verdict.SKIPPED
    assert skipped.measured.startswith("version 3 does not ")
    assert skipped.measured.endswith(measured)


def test_a_new_version_that_cannot_be_asked() -> None:
    comparison = Comparison(
        headline=Headline(metric="hit_rate@4", protocol="seen_kept", value=0.5),
        live=3,
        live_headline=None,
        users=(),
    )
    foreign = check_quality(comparison, FreshServable(), ["?"], FreshServable(), SETTINGS)
    assert foreign.verdict is Verdict.SKIPPED
    assert foreign.measured == "the version has no signature 'retrieve'"
    broken = check_quality(
        comparison, FreshServable(signatures=SIGNATURES), ["INTERNAL"], FreshServable(), SETTINGS
    )
    assert (broken.verdict, broken.measured) == (Verdict.FAILED, "retrieve: INTERNAL")


def test_the_interval_holds_the_true_change_about_as_often_as_it_says() -> None:
    """Users with many or few interactions, two models with errors of their own."""
    random = np.random.default_rng(4)
    inside = 0
    for _ in range(200):
        rate = random.gamma(2, 0.1, 150).clip(0, 0.9)
        counts = random.poisson(4, 150) + 1
        live, new = random.binomial(counts, rate), random.binomial(counts, rate * 0.9)
        change = compare_hits(new, live)
        assert change.low <= change.value <= change.high
        inside += change.low <= -0.1 <= change.high
    assert 180 <= inside <= 198
