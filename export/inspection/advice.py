"""Advice on the options of an export, from what is known about the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shortlist.export.config import TrainConfig
from shortlist.export.data.columns import Column, FileColumns
from shortlist.export.data.config import DataConfig
from shortlist.export.data.reading.roles import plain_name
from shortlist.export.evaluation.held_out import HeldOut
from shortlist.export.inspection.facts import DataProfile

__all__ = ["Advice", "data_advice"]

_MANY_DUPLICATES = 0.01  # of the interactions
_MANY_SINGLES = 0.5  # of the users
_MANY_WITHOUT = 0.5  # of the candidates
_BUSY, _BUSY_SHARE = 1000, 0.01  # interactions of one user, and their share of all
_MOST = 50  # different values of a context, or kinds of events
_LEAST_ROWS = 10  # per value, on average
# Parts of names of columns.
_EVENTS = ("event", "action", "activity", "behavior", "behaviour", "interactiontype")
_AMOUNTS = ("quantity", "qty", "dwell", "duration", "watchtime", "playtime")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice.

    Attributes:
        text: Reason and remedy in one sentence.
        arguments: Arguments of `shortlist export` that follow it; empty if the user must decide
            or name a file.
    """

    text: str
    arguments: tuple[str, ...] = ()


def data_advice(
    files: Sequence[FileColumns],
    facts: DataProfile,
    held_out: HeldOut,
    train: TrainConfig,
    config: DataConfig,
) -> tuple[Advice, ...]:
    """Return advice on an export of the data, the most important first."""
    unread = [
        column
        for file in files
        if file.part == "interactions"
        for column in file.columns
        if column.role is None
    ]
    return (
        *_about_protocol(held_out, train),
        *_about_times(unread, facts),
        *_about_rows(facts),
        *_about_columns(unread, files[0].sampled if files else 0, config),
        *_about_catalogue(files, config),
    )


def _about_protocol(held_out: HeldOut, train: TrainConfig) -> Iterator[Advice]:
    text = held_out.advice(train.protocol, seen_last=train.seen_last_epochs > 0)
    if text is not None:
        yield Advice(text=text, arguments=("--protocol", "seen_kept"))


def _about_times(unread: Sequence[Column], facts: DataProfile) -> Iterator[Advice]:
    if facts.first is None:
        times = [column.name for column in unread if column.kind == "times"]
        name = times[0] if times else "COLUMN"
        yield Advice(
            text="without times, the order of events is not learned; if a column has them, name it "
            f"with --timestamp-column {name}",
            arguments=("--timestamp-column", name) if times else (),
        )


def _about_rows(facts: DataProfile) -> Iterator[Advice]:
    total = facts.interactions
    if facts.duplicates > _MANY_DUPLICATES * total:
        yield Advice(
            text=f"{facts.duplicates:,} of {total:,} interactions equal another in user, candidate "
            "and time; if events are logged twice, remove the copies"
        )
    most = facts.per_user.most
    if most > max(_BUSY, _BUSY_SHARE * total):
        yield Advice(
            text=f"one user has {most:,} of {total:,} interactions; if that is a program or a test "
            "account, remove it"
        )
    singles = sum(band.members for band in facts.per_user.bands if band.most == 1)
    if singles > _MANY_SINGLES * facts.users:
        yield Advice(
            text=f"{singles:,} of {facts.users:,} users have a single interaction, which no split "
            "can hold out; requests with histories serve them best"
        )
    without = facts.popularity.without
    if without > _MANY_WITHOUT * facts.candidates:
        yield Advice(
            text=f"{without:,} of {facts.candidates:,} candidates have no interactions; they are "
            "found by their attributes alone"
        )


def _about_columns(unread: Sequence[Column], sampled: int, config: DataConfig) -> Iterator[Advice]:
    kinds = [column for column in unread if _is(column, _EVENTS) and 2 <= column.distinct <= _MOST]
    amounts = [
        column for column in unread if _is(column, _AMOUNTS) and column.kind.endswith("numbers")
    ]
    if kinds and config.event_column is None:
        name, examples = kinds[0].name, kinds[0].examples
        yield Advice(
            text=f"column {name!r} seems to hold kinds of events, such as {', '.join(examples)}; "
            "if some tell more than others, weigh them: "
            f"--event-column {name} --event-weights {examples[0]}=1,…"
        )
    if amounts and config.weight_column is None:
        name = amounts[0].name
        yield Advice(
            text=f"column {name!r} seems to hold amounts; if a larger one tells more, "
            f"--weight-column {name} weighs interactions by it and leaves out those of 0 or less"
        )
    for column in unread:
        if column not in (*kinds, *amounts) and _is_circumstance(column, sampled):
            yield Advice(
                text=f"column {column.name!r} has {column.distinct} different values, such as "
                f"{', '.join(column.examples)}; if it is known before the user chooses, "
                f"--context-column {column.name} makes it a feature of requests"
            )


def _about_catalogue(files: Sequence[FileColumns], config: DataConfig) -> Iterator[Advice]:
    if files and config.candidates_file is None:
        yield Advice(
            text="candidates have no titles and attributes; --candidates FILE adds them, and "
            "requests can then filter by them"
        )


def _is_circumstance(column: Column, sampled: int) -> bool:
    return column.kind in (
        "text",
        "true or false",
        "whole numbers",
    ) and 2 <= column.distinct <= min(_MOST, sampled // _LEAST_ROWS)


def _is(column: Column, names: Sequence[str]) -> bool:
    return any(name in plain_name(column.name) for name in names)
