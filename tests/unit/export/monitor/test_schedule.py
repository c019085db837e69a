"""Rounds, with a clock of their own."""

import pytest

from shortlist.export.monitor.schedule import run_rounds


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_rounds_begin_at_regular_moments_and_failures_do_not_stop_them() -> None:
    clock, starts, failures = Clock(), list[float](), list[tuple[str, float]]()

    def work() -> None:
        starts.append(clock.now)
        clock.now += {2: 25.0}.get(len(starts), 1.0)  # the second one is slow
        if len(starts) == 3:
            raise ValueError("no log")
        if len(starts) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rounds(
            work,
            every=10.0,
            failed=lambda problem, pause: failures.append((str(problem), pause)),
            errors=(ValueError,),
            clock=clock,
            sleep=clock.sleep,
        )
    # After the slow round the next one begins at once, and none is caught up.
    assert starts == [1000.0, 1010.0, 1035.0, 1045.0, 1055.0]
    assert failures == [("no log", 9.0)]


def test_other_exceptions_end_the_rounds() -> None:
    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_rounds(work, every=1.0, failed=lambda *_: None, errors=(ValueError,))
