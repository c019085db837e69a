"""`shortlist recommend`: its parser, which imports nothing heavy, and the command."""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shortlist.clients.cli.output import progress, step, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser, name_value_pairs
from shortlist.clients.cli.progress import Work, working
from shortlist.clients.cli.retrieval import (
    add_retrieval_arguments,
    add_tensor_arguments,
    retrieval_options,
)
from shortlist.clients.contract import CANDIDATE_ID, USER_ID
from shortlist.clients.errors import ShortlistError
from shortlist.export.cli.options import add_reading_arguments, add_repository, data_config
from shortlist.serving.repository.reference import VersionReference, find_version

if TYPE_CHECKING:
    import pyarrow as pa

    from shortlist.export.bulk.engine import BulkServable
    from shortlist.export.bulk.queries import BulkQueries
    from shortlist.export.bulk.run import BulkCounts
    from shortlist.export.data.config import DataConfig

__all__ = ["add_recommend", "recommend"]

_FORMATS: Final = ("parquet", "jsonl")
_PART_ROWS: Final = 65_536


def add_recommend(verbs: Parsers) -> None:
    """Add `recommend`."""
    parser = add_parser(
        verbs,
        "recommend",
        "Write the candidates of many users to files.",
        details="Runs a version of a model repository in this process, without a server, and "
        "gives the answers that a server would. The output is a folder of parts; the same command "
        "continues after the finished ones if it was stopped.",
        example="shortlist recommend --servable models/retrieval_ivf/stable --users all -k 100 "
        "--output recs.parquet",
        run="shortlist.export.cli.recommend:recommend",
    )
    _add_lists(parser)
    add_retrieval_arguments(parser)
    parser.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="feature of every user, or input of a model that Shortlist did not export; repeatable",
    )
    add_repository(parser)
    _add_histories(parser)
    add_tensor_arguments(parser)
    _add_beam(parser)


def _add_lists(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--servable",
        required=True,
        metavar="VERSION",
        help="<repository>/<model>/<version>, or <model>/<version> in --repository; a label such "
        "as stable stands for its version",
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--users",
        metavar="all|FILE",
        help="all users that the servable knows, a file with a column of user ids, or JSON lines "
        "with histories and features as in `shortlist query --history-file`",
    )
    who.add_argument(
        "--similar",
        metavar="all|FILE",
        help="find similar candidates instead, for all that the servable knows or those of a file",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the parts")
    parser.add_argument(
        "--format", choices=_FORMATS, default="parquet", help="form of the parts (default: parquet)"
    )
    parser.add_argument(
        "--part-rows",
        type=int,
        default=_PART_ROWS,
        metavar="N",
        help="users per part (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start again if the folder has parts already"
    )


def _add_histories(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("histories")
    group.add_argument(
        "--history",
        dest="data_source",
        action="append",
        metavar="SOURCE",
        help="what users did since the version was trained: a file of interactions, or any other "
        "--data of `shortlist export`; repeatable",
    )
    group.add_argument(
        "--now",
        type=_seconds,
        metavar="TIME",
        help="time from which the ages of events count, such as 2024-05-31T18:00 (UTC) or seconds "
        "since 1970 (default: that of the newest event)",
    )
    add_reading_arguments(group)


def _add_beam(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "Apache Beam", "--users, --similar and --output can then be addresses that Beam knows"
    )
    group.add_argument(
        "--runner",
        metavar="NAME",
        help="run as a pipeline of Apache Beam, on DirectRunner, FlinkRunner, SparkRunner, "
        "DataflowRunner or another of its runners",
    )
    group.add_argument(
        "beam", nargs="*", metavar="-- OPTIONS", help="options of Beam and of its runner"
    )


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"takes a time such as 2024-05-31T18:00 or 1717178400, got {text!r}"
        ) from None
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()


def recommend(args: argparse.Namespace) -> int:
    """Write the candidates of many users to files."""
    _check(args)
    found = find_version(args.servable, root=args.repository)
    config = data_config(args)
    from shortlist.export.bulk.engine import BulkServable
    from shortlist.export.bulk.output import open_output
    from shortlist.export.bulk.run import run_bulk
    from shortlist.export.notices import without_notices

    with without_notices():
        loaded = BulkServable(found.path, **_asked(args, found))
    with loaded as servable:
        progress(step("load", time.monotonic() - args.began, str(found)))
        if args.runner is not None:
            return _by_beam(args, found, servable)
        queries = _queries(args, servable, config)
        _try(servable, queries.table)
        output = Path(args.output)
        plan = _plan(args, found, queries)
        with open_output(output, plan, form=args.format, overwrite=args.overwrite) as folder:
            started = time.monotonic()
            with working("recommend") as work:
                counts = run_bulk(
                    servable.answer,
                    servable.answers(queries.table.schema),
                    queries.table,
                    folder,
                    part_rows=args.part_rows,
                    progress=lambda counts: _show(work, counts),
                )
    _report(args, found, counts, time.monotonic() - started)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check what needs no model.

    Raises:
        ShortlistError: Options contradict each other, or the folder cannot be created.
    """
    if args.part_rows < 1:
        raise ShortlistError(f"--part-rows must be at least 1, got {args.part_rows}")
    if args.now is not None and args.data_source is None:
        raise ShortlistError("--now is the time from which --history counts ages; give --history")
    if args.similar is not None:
        filters = (f"filter_{name}" for name in ("any", "all", "min", "max"))
        for name in ("data_source", "feature", "exclude", "exclude_seen", "keep_history", *filters):
            if getattr(args, name):
                option = {"data_source": "history"}.get(name, name).replace("_", "-")
                raise ShortlistError(f"--{option} does not apply to --similar; leave it out")
    if args.runner is not None:
        _check_beam(args)
    elif args.beam:
        raise ShortlistError(f"{args.beam[0]} is an option of Beam; give --runner, too")
    elif Path(args.output).is_file():
        raise ShortlistError(f"--output must name a folder, got the file {args.output}")
    elif not (parent := Path(args.output).absolute().parent).is_dir():
        raise ShortlistError(f"no such folder: {parent}; create it")


def _check_beam(args: argparse.Namespace) -> None:
    if args.data_source is not None:
        raise ShortlistError(
            "--history needs all events in one place, so not with --runner; give --users JSON "
            "lines with histories"
        )
    folder = Path(args.output)
    if folder.is_dir() and any(folder.iterdir()):
        raise ShortlistError(
            f"{folder} is not empty, and a pipeline does not continue another; name a new folder"
        )


def _asked(args: argparse.Namespace, found: VersionReference) -> dict[str, Any]:
    """Return the arguments of `BulkServable` that the options give."""
    return {
        "options": retrieval_options(args),
        "tensors": _tensors(args, found),
        "features": _features(args),
    }


def _tensors(args: argparse.Namespace, found: VersionReference) -> dict[str, str]:
    """Return the names that the options give, else the manifest; none to find them."""
    from shortlist.serving.repository.version import read_manifest

    parts = ("signature", "query", "ids", "scores")
    named = dict(zip(parts, (args.signature, args.input, args.ids, args.scores), strict=True))
    given = {part: name for part, name in named.items() if name is not None}
    manifest = read_manifest(found.path)
    if given or manifest is None or not manifest.interface or manifest.retrieval is None:
        return given
    return {part: getattr(manifest.retrieval, part) for part in parts}


def _features(args: argparse.Namespace) -> dict[str, list[str]]:
    features: dict[str, list[str]] = {}
    for name, value in name_value_pairs(args.feature, "--feature"):
        features.setdefault(name, []).append(value)
    return features


def _queries(
    args: argparse.Namespace, servable: "BulkServable", config: "DataConfig"
) -> "BulkQueries":
    """Return who is asked, and say how it was read."""
    from shortlist.export.bulk.queries import read_candidates, read_users, with_histories

    started = time.monotonic()
    if args.similar is not None:
        queries = read_candidates(args.similar, servable, config)
    else:
        queries = read_users(args.users, servable, config)
        if args.data_source is not None:
            from shortlist.export.data import load

            queries = with_histories(queries, load(config), args.now)
    for note in queries.notes:
        progress(f"note: {note}")
    who = "candidates" if args.similar is not None else "users"
    progress(step("queries", time.monotonic() - started, _counted(len(queries), who)))
    return queries


def _by_beam(args: argparse.Namespace, found: VersionReference, servable: "BulkServable") -> int:
    """Write the candidates by a pipeline."""
    try:
        from shortlist.export.bulk.beam import BulkPipeline, run_beam
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "apache_beam":
            raise
        raise ShortlistError(
            "--runner needs Apache Beam; install it: pip install 'shortlist[beam]'"
        ) from exc
    from shortlist.export.bulk.queries import ALL, example_query

    started = time.monotonic()
    similar = args.similar is not None
    source = args.similar if similar else args.users
    ids = None
    if source == ALL:
        ids = (servable.candidates() if similar else servable.users()).to_pylist()
    named = args.data_candidate_column if similar else args.data_user_column
    pipeline = BulkPipeline(
        servable=str(found.path.resolve()),
        **_asked(args, found),
        ids=ids,
        source=None if source == ALL else source,
        column=named or (CANDIDATE_ID if similar else USER_ID),
        similar=similar,
        output=args.output,
        form=args.format,
    )
    example = example_query(pipeline.field, queries=pipeline.has_queries)
    _try(servable, example)
    schema = servable.answers(example.schema)
    run_beam(pipeline, schema, [f"--runner={args.runner}", *args.beam])
    progress(step("pipeline", time.monotonic() - started, args.runner))
    if args.json:
        write_json({"version": str(found), "output": args.output, "runner": args.runner})
    else:
        write(f"{args.output}: written by {args.runner}")
    return 0


def _try(servable: "BulkServable", queries: "pa.Table") -> None:
    """Ask the first query, so that a servable that cannot answer is known before files exist.

    Raises:
        ServingError: The servable cannot do what is asked.
    """
    from shortlist.export.notices import without_notices

    with without_notices():
        servable.answer(queries.slice(0, 1).combine_chunks().to_batches()[0])


def _plan(
    args: argparse.Namespace, found: VersionReference, queries: "BulkQueries"
) -> dict[str, Any]:
    """Return all that the parts depend on."""
    from shortlist.export.bulk.queries import fingerprint
    from shortlist.serving.repository.version import checksum

    who = "similar" if args.similar is not None else "users"
    tensors = {name: getattr(args, name) for name in ("signature", "input", "ids", "scores")}
    return {
        "servable": str(found),
        "saved_model": checksum(found.path / "saved_model.pb"),
        "k": args.k,
        "exclude": args.exclude or [],
        "exclude_seen": args.exclude_seen,
        "keep_history": args.keep_history,
        **{f"filter_{name}": getattr(args, f"filter_{name}") for name in ("any", "all")},
        **{f"filter_{name}": getattr(args, f"filter_{name}") for name in ("min", "max")},
        "feature": args.feature,
        "tensors": {name: value for name, value in tensors.items() if value is not None},
        who: len(queries),
        "queries": fingerprint(queries),
        "part_rows": args.part_rows,
        "format": args.format,
    }


def _show(work: Work, counts: "BulkCounts") -> None:
    if work.total is None:
        work.start(counts.total, done=counts.before)
    work.done = counts.before + counts.answered


def _report(
    args: argparse.Namespace, found: VersionReference, counts: "BulkCounts", seconds: float
) -> None:
    if args.json:
        write_json(
            {
                "version": str(found),
                "output": str(args.output),
                "parts": counts.parts,
                "queries": counts.total,
                "finished_before": counts.before,
                "answered": counts.answered,
                "unknown": counts.unknown,
                "empty": counts.empty,
                "events": counts.events,
                "known_events": counts.known_events,
                "seconds": round(seconds, 3),
            }
        )
        return
    who = "users" if args.similar is None else "candidates"
    if not counts.answered:
        write(f"{args.output}: complete already, {_counted(counts.total, who)} in {_parts(counts)}")
        return
    rate = counts.answered / seconds
    progress(
        step("recommend", seconds, f"{_counted(counts.answered, who)}, {rate:,.0f} per second")
    )
    line = f"{args.output}: {_counted(counts.total, who)} in {_parts(counts)}"
    write(line + (f", {counts.before:,} of them finished before" if counts.before else ""))
    unknown_events = counts.events - counts.known_events
    for count, total, what in (
        (counts.unknown, counts.answered, f"{who} are unknown to the model"),
        (counts.empty, counts.answered, f"{who} are left without candidates"),
        (
            unknown_events,
            counts.events,
            "events in histories have a candidate unknown to the model",
        ),
    ):
        if count:
            progress(f"note: {count:,} of {total:,} {what}")


def _parts(counts: "BulkCounts") -> str:
    return _counted(counts.parts, "parts")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"
