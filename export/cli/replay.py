"""`shortlist replay`: its parser, which imports nothing heavy, and the command."""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.clients import contract
from shortlist.clients.cli.connection import add_connection_arguments, security
from shortlist.clients.cli.output import number, progress, table, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser, duration
from shortlist.clients.request_log.user_ids import read_key
from shortlist.export.cli.options import add_reading_arguments, add_repository, data_config
from shortlist.export.cli.options.run_config import check_output
from shortlist.serving.rollout.judge.measures import Limits

if TYPE_CHECKING:
    from shortlist.export.data.config import DataConfig
    from shortlist.export.replay.result import OutcomeFigures, Replay

__all__ = ["add_replay", "replay"]

_SHOWN = 3  # changed lists on the terminal
_NAMES = 5  # candidates of each


def add_replay(verbs: Parsers) -> None:
    """Add `replay`."""
    parser = add_parser(
        verbs,
        "replay",
        "Ask two versions recorded requests and compare their answers.",
        details="Loads both versions into this process, or asks servers (--address). With "
        "--outcomes, what users did after the requests tells which lists would have been better. "
        "The status is 1 if the second version is worse than a limit allows.",
        example="shortlist replay logs --against stable 4 --repository models --output replay.html",
        run="shortlist.export.cli.replay:replay",
    )
    _add_queries(parser)
    add_repository(parser)
    _add_outcomes(parser)
    _add_limits(parser)
    group = add_connection_arguments(
        parser,
        "gRPC address of a server with both versions, or one address for each; repeatable "
        "(default: none, the versions are loaded from --repository)",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=contract.DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="timeout of one request (default: %(default)g)",
    )


def _add_queries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", nargs="+", metavar="LOG", help="file, folder or pattern")
    parser.add_argument(
        "--against",
        nargs=2,
        required=True,
        metavar=("A", "B"),
        help="versions to compare, B with A: numbers or labels of the log's model, or "
        "<model>/<version>",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="model in the log (default: the only one that it has)"
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=2000,
        metavar="N",
        help="queries to ask, a random sample of those in the log (default: %(default)s)",
    )
    parser.add_argument(
        "-k",
        "--k",
        type=int,
        metavar="K",
        help=f"candidates to ask for and to compare (default: {contract.DEFAULT_K} of as many as "
        "were asked for)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="write a page, too")


def _add_outcomes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("outcomes")
    group.add_argument(
        "--outcomes",
        dest="data_source",
        action="append",
        metavar="SOURCE",
        help="what users did, for hit rates: a file of interactions, or any other --data of "
        "`shortlist export`; repeatable",
    )
    group.add_argument(
        "--candidates",
        dest="data_candidates_file",
        metavar="FILE",
        help="file of candidates with their titles, for the changed lists",
    )
    group.add_argument(
        "--window",
        type=duration,
        default=86_400.0,
        metavar="TIME",
        help="time after a request in which interactions count, such as 30m or 7d (default: 1d)",
    )
    group.add_argument(
        "--user-id-key",
        type=Path,
        metavar="FILE",
        help="file with the key of the log's hashed user ids",
    )
    add_reading_arguments(group)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits", "as of `shortlist canary --judge`")
    for option, default, text in (
        ("--max-errors-more", Limits.errors, "largest excess of failed requests, as a share"),
        ("--max-empty-more", Limits.empty, "largest excess of empty lists, as a share"),
        ("--max-slow-more", Limits.slow, "largest excess of slower requests, as a share"),
        ("--slow-ratio", Limits.latency_ratio, "ratio of latencies that counts as slower"),
        ("--min-overlap", Limits.min_overlap, "least share of A's list in B's, on average"),
        (
            "--max-hit-rate-drop",
            0.1,
            "largest drop of the hit rate, as a share of A's; its 95%% interval decides",
        ),
    ):
        group.add_argument(
            option,
            type=float,
            default=default,
            metavar="NUMBER",
            help=f"{text} (default: %(default)g)",
        )


def replay(args: argparse.Namespace) -> int:
    """Ask two versions recorded requests; 1 if a limit is broken."""
    for option in ("requests", "k", "timeout"):
        if (value := getattr(args, option)) is not None and value <= 0:
            raise ValueError(f"--{option} must be positive, got {value:g}")
    if not 0 <= args.max_hit_rate_drop <= 1:
        raise ValueError(f"--max-hit-rate-drop must be in 0 to 1, got {args.max_hit_rate_drop:g}")
    limits = Limits(
        errors=args.max_errors_more,
        empty=args.max_empty_more,
        slow=args.max_slow_more,
        latency_ratio=args.slow_ratio,
        min_overlap=args.min_overlap,
    )
    if args.output is not None:
        check_output(args.output, "--output")
    outcomes = _outcome_data(args)
    from shortlist.export.replay.run import ReplaySettings, run_replay

    settings = ReplaySettings(
        logs=args.log,
        against=tuple(args.against),
        model=args.model,
        requests=args.requests,
        k=args.k,
        repository=args.repository,
        addresses=args.address or (),
        timeout=args.timeout,
        security=security(args),
        outcomes=outcomes,
        window=args.window,
        key=None if args.user_id_key is None else read_key(args.user_id_key),
        limits=limits,
        max_hit_rate_drop=args.max_hit_rate_drop,
    )
    found = run_replay(settings, report=progress)
    if args.output is not None:
        from shortlist.export.replay.page import render_replay

        args.output.write_bytes(render_replay(found).encode("utf-8", "replace"))
        progress(f"page: {args.output}")
    if args.json:
        write_json({**dataclasses.asdict(found), "kept": found.kept})
    else:
        write("\n\n".join(_blocks(found)))
    return 0 if found.kept else 1


def _outcome_data(args: argparse.Namespace) -> "DataConfig | None":
    if args.data_source is None:
        for option in ("candidates", "user_id_key"):
            name = "data_candidates_file" if option == "candidates" else option
            if getattr(args, name) is not None:
                raise ValueError(f"--{option.replace('_', '-')} needs --outcomes")
        return None
    more = {} if args.data_candidates_file is None else {"unknown_candidates": "add"}
    return data_config(args, **more)


def _blocks(found: "Replay") -> Iterator[str]:
    from shortlist.export.replay.words import facts, verdict

    yield facts(found)
    yield _answers(found)
    if found.outcomes is not None:
        yield _outcomes(found, found.outcomes)
    if found.changed:
        yield _changed(found)
    for side in found.sides:
        for message, count in side.errors.items():
            yield f"{side.name} failed {count:,} times: {message}"
    if found.left_out:
        yield "\n".join(f"not asked: {count:,} ({why})" for why, count in found.left_out.items())
    if found.notes:
        yield "\n".join(found.notes)
    yield _limits(found)
    yield verdict(found)


def _answers(found: "Replay") -> str:
    rows = [["version", "failed", "empty", "unknown users", "candidates", "p50 ms", "p99 ms"]]
    for side in found.sides:
        rows.append(
            [
                side.name,
                f"{side.failed:,}",
                f"{side.empty:,}",
                number(side.unknown_users, ","),
                f"{side.distinct:,}",
                number(side.p50_ms, ".2f"),
                number(side.p99_ms, ".2f"),
            ]
        )
    lines = [table(rows)]
    if found.overlap is not None and found.same_lists is not None:
        lines.append(
            f"overlap@{found.k} {found.overlap:.1%}, same lists {found.same_lists:.1%}, "
            f"Kendall's tau {number(found.rank_correlation, '.2f')}, new empty lists "
            f"{found.new_empty:,}"
        )
    return "\n".join(lines)


def _outcomes(found: "Replay", outcomes: "OutcomeFigures") -> str:
    from shortlist.export.replay.words import interval_words, outcome_words

    rows = [["lists", f"hit rate@{found.k}", "95% interval"]]
    names = [*(side.name for side in found.sides), "recorded"]
    for name, rate, interval in zip(names, outcomes.hit_rates, outcomes.intervals, strict=True):
        rows.append([name, f"{rate:.1%}", interval_words(interval)])
    difference = interval_words(outcomes.difference_interval, sign="+")
    rows.append(["change", f"{outcomes.difference:+.1%}", difference])
    notes = [f"- {note}" for note in outcomes.notes]
    return "\n".join([outcome_words(outcomes), table(rows, text=(0, 2)), *notes])


def _changed(found: "Replay") -> str:
    from shortlist.export.replay.words import moment

    lines = ["most different lists:"]
    for entry in found.changed[:_SHOWN]:
        after = f", after {', '.join(entry.history)}" if entry.history else ""
        when = f" at {moment(entry.time)}" if entry.time else ""
        lines.append(f"{entry.user_id or 'no user id'}{when}{after}: {entry.overlap:.0%} in common")
        for side, names in zip(found.sides, (entry.before, entry.after), strict=True):
            shown = ", ".join(names[:_NAMES]) or "nothing"
            lines.append(f"  {side.name}: {shown}{', …' if len(names) > _NAMES else ''}")
        if entry.chosen:
            lines.append(f"  chosen: {', '.join(entry.chosen[:_NAMES])}")
    return "\n".join(lines)


def _limits(found: "Replay") -> str:
    first, second = (side.name for side in found.sides)
    rows = [["limit", first, second, "worse by", "allowed", ""]]
    for limit in found.limits:
        rows.append(
            [
                limit.name,
                number(limit.first, ".4g"),
                number(limit.second, ".4g"),
                f"{limit.worse_by:.4g}",
                f"{limit.allowed:.4g}",
                "kept" if limit.kept else "BROKEN",
            ]
        )
    return table(rows, text=(0, 5))
