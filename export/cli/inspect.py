"""`shortlist inspect`."""

import argparse
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import notice, progress, table, write, write_json
from shortlist.export.cli.console import command_name
from shortlist.export.cli.options.run_config import as_toml, check_output, from_file, run_config
from shortlist.export.data.config import DataConfig, option_of, without_password

if TYPE_CHECKING:
    from shortlist.export.data.columns import FileColumns
    from shortlist.export.inspection.facts import DataProfile
    from shortlist.export.inspection.inspection import Inspection, SplitFacts

__all__ = ["inspect"]

_BAR = 24  # characters of the longest bar
_WIDEST = 36  # characters of examples


def inspect(args: argparse.Namespace) -> int:
    """Print what data holds and what is wrong with it, without training."""
    if args.files:
        args.data_source = [*args.files, *(args.data_source or ())]
    config = run_config(args)
    if args.print_config:
        write(as_toml(config))
        return 0
    if args.data_source is None and config.data == DataConfig():
        raise ValueError("there is nothing to inspect; name a FILE, or --data or --config")
    if args.output is not None:
        check_output(args.output, "--output")
    # NumPy, PyArrow and the like are not needed before.
    from shortlist.export.inspection.inspection import inspect_data

    inspection = inspect_data(config.data, config.export.train)
    if args.output is not None:
        from shortlist.export.inspection.page import render_inspection

        args.output.write_bytes(render_inspection(inspection).encode("utf-8", "replace"))
        progress(f"page: {args.output}")
    if args.json:
        write_json(_as_json(inspection))
    elif blocks := list(_blocks(inspection, args.config)):
        write("\n\n".join(blocks))
    if inspection.problem is not None:
        notice(f"error: {inspection.problem}")
        return 1
    return 0


def _as_json(inspection: "Inspection") -> dict[str, Any]:
    return {**dataclasses.asdict(inspection), "source": inspection.source.as_json()}


def _blocks(inspection: "Inspection", file: Path | None) -> Iterator[str]:
    for source in inspection.files:
        yield _columns(source)
    if inspection.notes:
        yield "\n".join(inspection.notes)
    facts = inspection.facts
    if facts is None:
        return
    yield _summary(facts, faulty=sum(fault.count for fault in inspection.faults))
    yield _activity(facts)
    if facts.attributes:
        yield _attributes(facts)
    if inspection.split is not None:
        lines = [*_split(inspection.split), *(f"- {advice.text}" for advice in inspection.advice)]
        if inspection.problem is None:
            lines += ["", f"train with: {_export_command(inspection, file)}"]
        yield "\n".join(lines)


def _columns(file: "FileColumns") -> str:
    rows = [["column", "type", "read as", "reason", "examples"]]
    for column in file.columns:
        missing = f", {column.missing:,} missing" if column.missing else ""
        rows.append(
            [
                column.name,
                f"{column.kind}{missing}",
                column.role or "-",
                column.why or "-",
                _short(", ".join(column.examples)),
            ]
        )
    return f"{file.part} of {file.name}\n{table(rows, text=range(5))}"


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _summary(facts: "DataProfile", *, faulty: int) -> str:
    size = f"{facts.interactions:,} interactions of {facts.users:,} users"
    without = f", without {faulty:,} faulty rows" if faulty else ""
    lines = [f"{size} with {facts.candidates:,} candidates{without}"]
    if facts.first is not None:
        lines.append(f"from {facts.first} to {facts.last} (UTC)")
    lines.append(
        f"{facts.repeats:,} ({facts.repeats / facts.interactions:.1%}) are with a candidate that "
        "the user had before"
    )
    if facts.duplicates:
        lines.append(f"{facts.duplicates:,} equal another in user, candidate and time")
    line = f"of the candidates, {facts.popularity.shares} of the interactions"
    if facts.popularity.without:
        line += f"; {facts.popularity.without:,} have none"
    lines.append(line)
    if facts.ratings is not None:
        lines.append("ratings from {:g} to {:g}, mean {:.2f}".format(*_range(facts.ratings)))
    if not faulty:
        lines += [f"left out: {count:,} ({what})" for what, count in facts.skipped.items()]
    return "\n".join(lines)


def _range(ratings: tuple[float, float, float]) -> tuple[float, float, float]:
    lowest, mean, highest = ratings
    return lowest, highest, mean


def _activity(facts: "DataProfile") -> str:
    """Return how many users and candidates have how many interactions, with bars."""
    blocks = []
    for name, counts in (("user", facts.per_user), ("candidate", facts.per_candidate)):
        most = max(band.members for band in counts.bands)
        rows = [[f"interactions per {name}", f"{name}s", ""]]
        for band in counts.bands:
            bar = "█" * max(round(_BAR * band.members / most), 1)
            rows.append([str(band), f"{band.members:,}", bar])
        line = f"median {counts.median:,g}, mean {counts.mean:,.1f}, most {counts.most:,}"
        blocks.append(f"{table(rows, text=(0, 2))}\n{line}")
    return "\n\n".join(blocks)


def _attributes(facts: "DataProfile") -> str:
    rows = [["attribute", "of", "type", "known", "different", "examples"]]
    for attribute in facts.attributes:
        rows.append(
            [
                attribute.name,
                attribute.of,
                attribute.kind,
                f"{attribute.known / attribute.total:.0%}",
                f"{attribute.distinct:,}",
                _short(", ".join(attribute.examples)),
            ]
        )
    return table(rows, text=(0, 1, 2, 5))


def _split(split: "SplitFacts") -> list[str]:
    reason = f" ({split.reason})" if split.reason else ""
    return [f"split {split.method}{reason}: {split.parts}", str(split.held_out)]


def _export_command(inspection: "Inspection", file: Path | None) -> str:
    """Return the command of an export that reads the same and follows the advice.

    Args:
        inspection: Inspection.
        file: Configuration file that it read; its values need no options.
    """
    words, base = [command_name(), "export"], from_file(file).data
    if file is not None:
        words += ["--config", str(file)]
    if file is None or inspection.source.sources != base.sources:
        for source in inspection.source.sources:
            words += [option_of("source"), without_password(source)]
    for field in dataclasses.fields(DataConfig):
        value = getattr(inspection.source, field.name)
        if field.name in ("source", "more_sources") or value == getattr(base, field.name):
            continue
        option = option_of(field.name)
        values = value if isinstance(value, tuple) else (value,)
        values = (",".join(values),) if field.name == "event_weights" else values
        for each in values:
            words += [option] if each is True else [option, str(each)]
    for advice in inspection.advice:
        words += advice.arguments
    return shlex.join(words)
