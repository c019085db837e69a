"""Every rollout and rollback as a table: from a state and a verb to the steps."""

import itertools

import pytest

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.server_config import ModelEntry
from shortlist.serving.rollout.goals import NothingToDoError, goals_for
from shortlist.serving.rollout.plan import StepKind, plan, plan_all
from shortlist.serving.rollout.state import ServableState, ServerState

Labels = dict[str, int]


def labels(stable: int, canary: int, previous: int | None = None) -> Labels:
    return {"stable": stable, "canary": canary} | ({"previous": previous} if previous else {})


def server(available: set[int], at: Labels, *, address: str = "a:8500") -> ServerState:
    return ServerState(address=address, available=frozenset(available), labels=at)


def state(
    *servers: ServerState, recorded: ModelEntry | None, published: tuple[int, ...] = (1, 2, 3)
) -> ServableState:
    return ServableState(name="m", published=published, recorded=recorded, servers=servers)


def settled(versions: set[int], at: Labels, **options: tuple[int, ...]) -> ServableState:
    """One server that does what the file says."""
    entry = ModelEntry(versions=tuple(sorted(versions)), labels=at)
    return state(server(versions, at), recorded=entry, **options)


# (about, state, verb, version) -> [(kind, versions, labels, checked)]
ROLLOUTS = [
    (
        "a first canary labels what is served, loads, then labels",
        state(server({1}, {}), recorded=ModelEntry()),
        ("canary", 2),
        [
            (StepKind.LABEL, (1,), labels(1, 1), ()),
            (StepKind.LOAD, (1, 2), labels(1, 1), ()),
            (StepKind.LABEL, (1, 2), labels(1, 2), (2,)),
        ],
    ),
    (
        "a canary lets the previous version go before it loads the next",
        settled({1, 2}, labels(2, 2, 1)),
        ("canary", 3),
        [
            (StepKind.LABEL, (1, 2), labels(2, 2), ()),
            (StepKind.UNLOAD, (2,), labels(2, 2), ()),
            (StepKind.LOAD, (2, 3), labels(2, 2), ()),
            (StepKind.LABEL, (2, 3), labels(2, 3), (3,)),
        ],
    ),
    (
        "a canary that was killed while it loaded goes on loading",
        state(
            ServerState(
                address="a:8500",
                available=frozenset({1}),
                busy=frozenset({2}),
                labels=labels(1, 1),
            ),
            recorded=ModelEntry(versions=(1,), labels=labels(1, 1)),
        ),
        ("canary", 2),
        [
            (StepKind.LOAD, (1, 2), labels(1, 1), ()),
            (StepKind.LABEL, (1, 2), labels(1, 2), (2,)),
        ],
    ),
    ("a canary that runs needs nothing", settled({1, 2}, labels(1, 2)), ("canary", 2), []),
    (
        "a canary whose record is missing is recorded",
        state(
            server({1, 2}, labels(1, 2)),
            recorded=ModelEntry(versions=(1, 2), labels=labels(1, 1)),
        ),
        ("canary", 2),
        [(StepKind.RECORD, (1, 2), labels(1, 2), ())],
    ),
    (
        "a promotion is one move",
        settled({1, 2}, labels(1, 2)),
        ("promote", None),
        [(StepKind.LABEL, (1, 2), labels(2, 2, 1), ())],
    ),
    (
        "a promotion that was killed between two servers goes on",
        state(
            server({1, 2}, labels(2, 2, 1)),
            server({1, 2}, labels(1, 2), address="b:8500"),
            recorded=ModelEntry(versions=(1, 2), labels=labels(1, 2)),
        ),
        ("promote", None),
        [(StepKind.LABEL, (1, 2), labels(2, 2, 1), ())],
    ),
    (
        "and can be turned back from there",
        state(
            server({1, 2}, labels(2, 2, 1)),
            server({1, 2}, labels(1, 2), address="b:8500"),
            recorded=ModelEntry(versions=(1, 2), labels=labels(1, 2)),
        ),
        ("rollback", None),
        [
            (StepKind.LABEL, (1, 2), labels(1, 1), ()),
            (StepKind.UNLOAD, (1,), labels(1, 1), ()),
        ],
    ),
    (
        "a promotion that is done needs nothing",
        settled({1, 2}, labels(2, 2, 1)),
        ("promote", 2),
        [],
    ),
    (
        "a rollback is one move, and the bad version goes after it",
        settled({1, 2}, labels(2, 2, 1)),
        ("rollback", None),
        [
            (StepKind.LABEL, (1, 2), labels(1, 1), ()),
            (StepKind.UNLOAD, (1,), labels(1, 1), ()),
        ],
    ),
    (
        "a rollback while a canary runs ends the canary",
        settled({2, 3}, labels(2, 3)),
        ("rollback", None),
        [
            (StepKind.LABEL, (2, 3), labels(2, 2), ()),
            (StepKind.UNLOAD, (2,), labels(2, 2), ()),
        ],
    ),
    (
        "a rollback to an old version loads it and asks it first",
        settled({3}, labels(3, 3)),
        ("rollback", 1),
        [
            (StepKind.LOAD, (1, 3), labels(3, 3), ()),
            (StepKind.LABEL, (1, 3), labels(1, 1), (1,)),
            (StepKind.UNLOAD, (1,), labels(1, 1), ()),
        ],
    ),
    (
        "an aborted canary goes",
        settled({1, 2}, labels(1, 2)),
        ("abort", None),
        [
            (StepKind.LABEL, (1, 2), labels(1, 1), ()),
            (StepKind.UNLOAD, (1,), labels(1, 1), ()),
        ],
    ),
    (
        "a canary that is not labelled yet is unloaded",
        state(
            server({1, 2}, labels(1, 1)),
            recorded=ModelEntry(versions=(1, 2), labels=labels(1, 1)),
        ),
        ("abort", None),
        [(StepKind.UNLOAD, (1,), labels(1, 1), ())],
    ),
    (
        "finishing lets the previous version go",
        settled({1, 2}, labels(2, 2, 1)),
        ("finish", None),
        [
            (StepKind.LABEL, (1, 2), labels(2, 2), ()),
            (StepKind.UNLOAD, (2,), labels(2, 2), ()),
        ],
    ),
    (
        "a first version is made stable at once",
        state(server(set(), {}), recorded=None),
        ("promote", 1),
        [
            (StepKind.LOAD, (1,), {}, ()),
            (StepKind.LABEL, (1,), labels(1, 1), (1,)),
        ],
    ),
    (
        "a replica that came back from an older file gets everything again",
        state(
            server({1, 2}, labels(2, 2, 1)),
            server({1}, labels(1, 1), address="b:8500"),
            recorded=ModelEntry(versions=(1, 2), labels=labels(2, 2, 1)),
        ),
        ("promote", None),
        [
            (StepKind.LOAD, (1, 2), labels(2, 2, 1), ()),
            (StepKind.LABEL, (1, 2), labels(2, 2, 1), (2,)),
        ],
    ),
    (
        "a foreign label is kept with its version",
        state(
            server({1, 2}, {**labels(1, 1), "nightly": 2}),
            recorded=ModelEntry(versions=(1, 2), labels={**labels(1, 1), "nightly": 2}),
        ),
        ("canary", 3),
        [
            (StepKind.LOAD, (1, 2, 3), {**labels(1, 1), "nightly": 2}, ()),
            (StepKind.LABEL, (1, 2, 3), {**labels(1, 3), "nightly": 2}, (3,)),
        ],
    ),
]


@pytest.mark.parametrize(
    ("about", "before", "verb", "expected"), ROLLOUTS, ids=[row[0] for row in ROLLOUTS]
)
def test_plan(
    about: str,
    before: ServableState,
    verb: tuple[str, int | None],
    expected: list[tuple[StepKind, tuple[int, ...], Labels, tuple[int, ...]]],
) -> None:
    steps = plan_all(before, goals_for(verb[0], before, verb[1]))
    found = [
        (step.kind, step.entry.versions, dict(step.entry.labels), step.check) for step in steps
    ]
    assert found == expected


IMPOSSIBLE = [
    (settled({1}, labels(1, 1)), "canary", 1, "version 1 of 'm' is already stable"),
    (settled({1, 2}, labels(1, 2)), "canary", 3, "version 2 of 'm' is the canary"),
    (settled({1}, labels(1, 1)), "canary", 9, "version 9 of 'm' is not in the repository"),
    (settled({1}, labels(1, 1)), "promote", 2, "version 2 of 'm' is not the canary"),
    (settled({1, 2}, labels(1, 2)), "promote", 3, r"not the canary \(version 2 is\)"),
    (
        state(server({1}, {}), recorded=None),
        "promote",
        2,
        "labelled stable, and the servers serve 1",
    ),
    (state(recorded=None), "promote", 2, "no server of 'm' answers"),
    (state(server(set(), {}), recorded=None), "canary", 2, "no server serves a version of 'm'"),
    (
        state(server({2, 3}, labels(2, 2)), recorded=ModelEntry(labels=labels(2, 2))),
        "rollback",
        None,
        "no earlier version is known; in the repository: 1, 3; run `shortlist rollback --to 1`",
    ),
    (settled({1}, labels(1, 1)), "canary", None, "a canary needs a version"),
    (
        state(
            server({1, 2}, labels(2, 2, 1)),
            server({1, 2}, labels(1, 2), address="b:8500"),
            recorded=None,
        ),
        "promote",
        None,
        "the servers disagreed on label 'stable'.*a:8500: 2, b:8500: 1",
    ),
]


@pytest.mark.parametrize(("before", "action", "version", "message"), IMPOSSIBLE)
def test_actions_that_do_not_fit_the_state_are_refused(
    before: ServableState, action: str, version: int | None, message: str
) -> None:
    with pytest.raises(RolloutError, match=message):
        plan_all(before, goals_for(action, before, version))


def small_states() -> list[ServableState]:
    """Every consistent state of up to two replicas over three versions and their labels."""
    states = []
    for stable, canary, previous in itertools.product((1, 2, 3), repeat=3):
        at = labels(stable, canary, previous)
        for extra in ((), (1,), (2,), (3,)):
            versions = {stable, canary, previous, *extra}
            states.append(settled(versions, at))
    return states


@pytest.mark.parametrize("action", ["promote", "rollback", "abort", "finish"])
def test_no_step_ever_leaves_a_label_without_its_version(action: str) -> None:
    """What the real server would accept and then break, from every state there is."""
    for before in small_states():
        current = before
        try:
            goals = goals_for(action, before)
        except NothingToDoError:
            continue  # no canary, or no earlier version
        for step in plan_all(before, goals):
            versions = set(step.entry.versions or ())
            assert set(step.entry.labels.values()) <= versions
            if step.kind is StepKind.LABEL:
                # A label moves only to what was loaded by a step before.
                assert versions <= current.servers[0].available
            if step.kind is StepKind.UNLOAD:
                assert step.entry.labels == current.servers[0].labels
            if step.kind is StepKind.LOAD:
                assert versions >= current.present()
            current = current.with_entry(step.entry)
        assert not plan(current, goals[-1])
        assert current.label("previous") != current.label("stable")


def test_steps_describe_themselves() -> None:
    before = settled({1, 2}, labels(2, 2, 1))
    assert [str(step) for step in plan_all(before, goals_for("canary", before, 3))] == [
        "m: label: set canary=2, stable=2",
        "m: unload: serve version 2 alone, with canary=2, stable=2",
        "m: load: serve versions 2, 3, wait until they are AVAILABLE",
        "m: label: check version 3, then set canary=3, stable=2",
    ]
