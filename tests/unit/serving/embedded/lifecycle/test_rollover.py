import pytest

from shortlist.serving.embedded.lifecycle.rollover import (
    Action,
    ActionKind,
    Phase,
    VersionView,
    next_action,
)


def view(version: int, phase: Phase, *, aspired: bool = True) -> VersionView:
    return VersionView(version=version, phase=phase, aspired=aspired)


def load(version: int) -> Action:
    return Action(kind=ActionKind.LOAD, version=version)


def unload(version: int) -> Action:
    return Action(kind=ActionKind.UNLOAD, version=version)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        pytest.param([], None, id="nothing managed"),
        pytest.param(
            [view(1, Phase.NEW), view(2, Phase.NEW)], load(2), id="newest of the new first"
        ),
        pytest.param(
            [view(1, Phase.READY, aspired=False), view(2, Phase.NEW)],
            load(2),
            id="the old version serves until the new one does",
        ),
        pytest.param(
            [view(1, Phase.READY, aspired=False), view(2, Phase.LOADING)],
            None,
            id="the old version serves while the new one loads",
        ),
        pytest.param(
            [view(1, Phase.READY, aspired=False), view(2, Phase.ERROR)],
            None,
            id="the old version serves if the new one failed",
        ),
        pytest.param(
            [view(1, Phase.READY, aspired=False), view(2, Phase.READY)],
            unload(1),
            id="the old version unloads once the new one serves",
        ),
        pytest.param(
            [view(1, Phase.READY, aspired=False), view(2, Phase.READY, aspired=False)],
            unload(1),
            id="all unload, lowest first, if none is aspired",
        ),
        pytest.param(
            [
                view(1, Phase.READY, aspired=False),
                view(2, Phase.READY, aspired=False),
                view(3, Phase.NEW),
            ],
            unload(1),
            id="one old version is enough to stay available",
        ),
        pytest.param(
            [view(1, Phase.UNLOADING, aspired=False), view(2, Phase.READY)],
            None,
            id="running actions are not repeated",
        ),
    ],
)
def test_next_action(versions: list[VersionView], expected: Action | None) -> None:
    assert next_action(versions) == expected
