"""Words that the page and the terminal share."""

from datetime import UTC, datetime

from shortlist.export.evaluation.metrics import Interval
from shortlist.export.monitor.words import seconds
from shortlist.export.replay.result import OutcomeFigures, Replay

__all__ = ["facts", "interval_words", "moment", "outcome_words", "verdict"]


def moment(time: float) -> str:
    """Return a time in UTC, to the second."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def facts(replay: Replay) -> str:
    """Return what was asked of whom."""
    sample = "all" if replay.queries == replay.recorded else f"a sample of {replay.queries:,}"
    words = f"{sample} of {replay.recorded:,} recorded queries"
    if replay.first_time:
        words += f", {moment(replay.first_time)} to {moment(replay.last_time)} (UTC)"
    where = "offline" if replay.how == "offline" else f"on {replay.how}"
    return f"{replay.model}: {words}, asked {where}"


def verdict(replay: Replay) -> str:
    """Return whether the limits were kept."""
    broken = [limit.name for limit in replay.limits if not limit.kept]
    second = replay.sides[1].name
    if not broken:
        return f"{second} is within all limits."
    return f"{second} is worse than allowed: {', '.join(broken)}."


def outcome_words(outcomes: OutcomeFigures) -> str:
    """Return which interactions the hit rates are about."""
    return (
        f"{outcomes.interactions:,} interactions of {outcomes.users:,} "
        f"user{'' if outcomes.users == 1 else 's'} within {seconds(outcomes.window)} of "
        "their latest request, counted plainly (no inverse propensity: the log does not say that "
        "lists were explored)"
    )


def interval_words(interval: Interval | None, *, sign: str = "") -> str:
    """Return a 95% interval of a share, or `-`."""
    if interval is None:
        return "-"
    return f"{interval.low:{sign}.1%} to {interval.high:{sign}.1%}"
