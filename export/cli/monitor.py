"""`shortlist monitor`."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.clients.cli.output import notice, number, progress, table, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser, duration
from shortlist.clients.contract import DEFAULT_K
from shortlist.clients.errors import ShortlistError
from shortlist.clients.request_log.user_ids import read_key
from shortlist.export.cli.options import add_reading_arguments, add_repository, data_config
from shortlist.export.cli.options.run_config import check_output
from shortlist.export.data.config import DataConfig
from shortlist.export.monitor.settings import MonitorSettings

if TYPE_CHECKING:
    from shortlist.export.monitor.figures import Served
    from shortlist.export.monitor.measure import Monitoring

__all__ = ["add_monitor", "monitor"]

_FAILURES = (ShortlistError, ValueError, OSError)


def add_monitor(verbs: Parsers) -> None:
    """Add `monitor`."""
    parser = add_parser(
        verbs,
        "monitor",
        "Measure what was served by what users did next.",
        details="Joins request logs with interactions, and shows hit rate, click rate, unknown "
        "users, coverage, age and drift by version, label and segment. With --every it measures "
        "again and again until it is stopped.",
        example="shortlist monitor --log logs --interactions events.parquet --page monitor.html",
        run="shortlist.export.cli.monitor:monitor",
    )
    _add_log(parser)
    _add_interactions(parser)
    _add_results(parser)


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log",
        action="append",
        required=True,
        metavar="PATH",
        help="request log: a file, a folder or a pattern; repeatable",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="model; repeatable (default: all in the log)",
    )
    add_repository(parser)
    parser.add_argument(
        "--window",
        type=duration,
        default=86_400.0,
        metavar="TIME",
        help="time after a list in which interactions count, such as 30m or 7d (default: 1d)",
    )
    parser.add_argument(
        "--last",
        type=duration,
        metavar="TIME",
        help="part of the log to read, up to now, such as 7d (default: all)",
    )
    parser.add_argument(
        "-k",
        "--k",
        type=int,
        default=DEFAULT_K,
        help="cut-off of the hit rate (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="PATH",
        help="earlier request log from which drift is measured; repeatable (default: the held-out "
        "queries of the version's export, which its manifest describes; of a version without "
        "them, its first 1,000 lists, or the first half if there are fewer than 2,000)",
    )


def _add_interactions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("interactions")
    group.add_argument(
        "--interactions",
        dest="data_source",
        action="append",
        metavar="SOURCE",
        help="what users did: a CSV, JSON, Parquet or Arrow file, a folder or pattern of such "
        "files, or an address; repeatable (default: none, so no hit and click rates)",
    )
    add_reading_arguments(group)
    group.add_argument(
        "--users", type=Path, metavar="FILE", help="file with a segment for each user"
    )
    group.add_argument(
        "--segment-column",
        metavar="COLUMN",
        help="its column with the segments, such as country; the 20 most frequent are shown "
        "(default: known and unknown users)",
    )
    group.add_argument(
        "--user-id-key",
        type=Path,
        metavar="FILE",
        help="file with the key of the log's hashed user ids",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    for option, text in (
        ("--output", "file for the figures as JSON"),
        ("--metrics", "file for Prometheus, such as models/.serving/monitor.prom"),
        ("--page", "file for an HTML page"),
    ):
        group.add_argument(option, type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--every",
        type=duration,
        metavar="TIME",
        help="measure again after this time, such as 1h; a round that fails is reported, and the "
        "next one follows",
    )


def monitor(args: argparse.Namespace) -> int:
    """Measure once, or again and again until SIGTERM or Ctrl-C."""
    settings = _settings(args)
    for option in ("--output", "--metrics", "--page"):
        if path := getattr(args, option.removeprefix("--")):
            check_output(path, option)
    if settings.every is None:
        _round(args, settings)
        return 0
    from shortlist.export.monitor.schedule import run_rounds

    try:
        run_rounds(
            lambda: _round(args, settings),
            every=settings.every,
            failed=_say_failure,
            errors=_FAILURES,
        )
    except KeyboardInterrupt:
        progress("stopped")
    return 0


def _settings(args: argparse.Namespace) -> MonitorSettings:
    interactions = data_config(args) if args.data_source else None
    users = None
    if args.users is not None:
        users = DataConfig(
            users_file=str(args.users), user_column=args.data_user_column or DataConfig.user_column
        )
    return MonitorSettings(
        logs=tuple(args.log),
        reference=tuple(args.reference),
        interactions=interactions,
        users=users,
        segment_column=args.segment_column,
        key=None if args.user_id_key is None else read_key(args.user_id_key),
        repository=args.repository,
        models=frozenset(args.model),
        window=args.window,
        last=args.last,
        k=args.k,
        every=args.every,
    )


def _say_failure(problem: Exception, pause: float) -> None:
    notice(f"error: {problem}; the next round begins in {pause:.0f} s")


def _round(args: argparse.Namespace, settings: MonitorSettings) -> None:
    # NumPy, PyArrow and the like are not needed before.
    from shortlist.export.monitor.measure import measure
    from shortlist.serving.repository.files import write_atomically

    monitoring = measure(settings, now=time.time())
    if args.output is not None:
        import json

        text = json.dumps(dataclasses.asdict(monitoring), indent=2, ensure_ascii=False)
        write_atomically(args.output, f"{text}\n")
    if args.metrics is not None:
        from shortlist.export.monitor.metrics import exposition

        write_atomically(args.metrics, exposition(monitoring))
    if args.page is not None:
        from shortlist.export.monitor.page import render_monitoring

        write_atomically(args.page, render_monitoring(monitoring))
    if args.json:
        write_json(dataclasses.asdict(monitoring), indent=2 if settings.every is None else None)
    else:
        write(_text(monitoring, settings))


def _text(monitoring: "Monitoring", settings: MonitorSettings) -> str:
    from shortlist.export.monitor.words import moment, seconds

    blocks = [f"{moment(monitoring.time)} (UTC)"] if monitoring.every is not None else []
    if monitoring.served:
        blocks += [_quality(monitoring), _queries(monitoring.served)]
    else:
        within = "" if settings.last is None else f" in the last {seconds(settings.last)}"
        blocks.append(f"no lists in the request log{within}")
    if monitoring.notes:
        blocks.append("\n".join(monitoring.notes))
    return "\n\n".join(blocks) + ("\n" if monitoring.every is not None else "")


def _quality(monitoring: "Monitoring") -> str:
    from shortlist.export.monitor.words import age

    rows = [
        [
            *("model", "version", "label", "segment", "lists", "users", "interactions"),
            *(f"hit rate@{monitoring.k}", "95% interval", "click rate", "coverage", "age"),
        ]
    ]
    for served in monitoring.served:
        of_version = [served.model, number(served.version, "d"), served.label or "-"]
        for segment, figures in (("all", served.figures), *served.segments.items()):
            interval = figures.interval
            whole = figures is served.figures  # a segment may have this name, too
            rows.append(
                [
                    *(of_version if whole else ("", "", "")),
                    segment,
                    f"{figures.lists:,}",
                    f"{figures.users:,}",
                    number(figures.interactions, ",d"),
                    number(figures.hit_rate, ".1%"),
                    "-" if interval is None else f"{interval.low:.1%} to {interval.high:.1%}",
                    number(figures.click_rate, ".2%"),
                    number(figures.coverage, ".1%"),
                    "-" if served.age is None or not whole else age(served.age),
                ]
            )
    return table(rows, text=(0, 2, 3))


def _queries(served: "Sequence[Served]") -> str:
    from shortlist.export.monitor.words import drift

    rows = [
        [
            *("model", "version", "label", "unknown users", "unknown events", "empty lists"),
            *("drift of scores", "drift of histories"),
        ]
    ]
    for each in served:
        compared = (
            (each.drift.scores, each.drift.scores_from),
            (each.drift.histories, each.drift.histories_from),
        )
        expected = each.drift.unknown_users
        unknown = number(each.figures.unknown_users, ".1%")
        rows.append(
            [
                each.model,
                number(each.version, "d"),
                each.label or "-",
                unknown if expected is None else f"{unknown} (export: {expected:.1%})",
                number(each.figures.unknown_history, ".1%"),
                number(each.figures.empty, ".1%"),
                *(
                    drift(index, origin)
                    if index is None
                    else f"{index:.2f} ({drift(index, origin)})"
                    for index, origin in compared
                ),
            ]
        )
    return table(rows, text=(0, 2, 6, 7))
