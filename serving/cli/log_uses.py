"""`shortlist log warmup`, `golden`, `replay` and `train`."""

import argparse
import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

from shortlist.clients import contract
from shortlist.clients.cli.connection import security
from shortlist.clients.cli.output import megabytes, number, progress, table, write, write_json
from shortlist.serving.cli.log import print_notes, selected_log
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.reference import VersionReference, find_version
from shortlist.serving.repository.server_config import CONFIG_FILE
from shortlist.serving.repository.version import checksum, read_manifest, write_manifest
from shortlist.serving.request_log.load import (
    LoadResult,
    Pace,
    plan,
    recorded_requests,
    send,
)
from shortlist.serving.request_log.queries import distinct_queries
from shortlist.serving.request_log.selection import SelectedLog
from shortlist.serving.request_log.warmup import (
    MOST_RECORDS,
    as_golden,
    varied_requests,
    write_warmup_file,
)
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.history import HISTORY_FILE, History
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.servers.check import Asked, ask_in_fresh_process

__all__ = ["golden", "replay", "train", "warmup"]


def _positive(option: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{option} must be positive, got {value:g}")


# --- warmup -------------------------------------------------------------------------


def warmup(args: argparse.Namespace) -> int:
    """Make warm-up records."""
    _positive("--requests", args.requests)
    if args.requests > MOST_RECORDS:
        raise ValueError(
            f"--requests must be at most {MOST_RECORDS}, which is all that a server reads, got "
            f"{args.requests}"
        )
    log = selected_log(args)
    version = None if args.version_dir is None else _unused(args)
    chosen = varied_requests(log, args.requests, batchable_only=args.batchable_only)
    if version is None:
        path, count = args.output, len(chosen)
        write_warmup_file(path, chosen)
    else:
        path = version.path / contract.WARMUP_FILE
        asked = Asked(
            name=version.name,
            version=version.version,
            path=version.path,
            queries=as_golden(chosen),
            record_warmup=True,
        )
        count = _recorded(asked, log)
    if args.json:
        write_json({"file": str(path), "records": count, "left_out": dict(log.left_out)})
    else:
        write(f"{count:,} warm-up records: {path}")
        print_notes(log)
    return 0


def _recorded(asked: Asked, log: SelectedLog) -> int:
    """Write the requests that a version answers into its folder; return their number.

    Raises:
        RepositoryError: It does not load, or answers none of them.
    """
    (fresh,) = ask_in_fresh_process([asked]).servables
    if fresh.error is not None:
        raise RepositoryError(f"{asked.path} does not load: {fresh.error}")
    refused = [answer for answer in fresh.answers if isinstance(answer, str)]
    log.left_out.update(f"the version refuses it: {answer}" for answer in refused)
    count = len(fresh.answers) - len(refused)
    if not count:
        raise RepositoryError(f"{asked.path} answers none of the requests: {refused[0]}")
    manifest = read_manifest(asked.path)
    if manifest is not None and manifest.files is not None:
        current = checksum(asked.path / contract.WARMUP_FILE)
        files = {**manifest.files, contract.WARMUP_FILE: current}
        write_manifest(asked.path, replace(manifest, files=files))
    return count


def _unused(args: argparse.Namespace) -> VersionReference:
    """Return the version that the options name, if no server can be about to load it.

    Raises:
        RepositoryError: There is no such version, or it is in use.
    """
    version = find_version(args.version_dir)
    root = version.repository.root
    config = ConfigFile(root / CONFIG_FILE)
    entry = config.entry(version.name) if config.path.exists() else None
    use = None
    if entry is not None and entry.versions is None:
        use = "the servers' configuration asks for the newest version"
        use = use if version.version == max(version.repository.versions(version.name)) else None
    elif entry is not None and version.version in {*(entry.versions or ()), *entry.labels.values()}:
        use = "the servers' configuration names it"
    addresses = args.address or History(root / HISTORY_FILE).known_servers()
    for address in addresses if use is None else ():
        with ReplicaClient(address, security=security(args)) as server:
            fleet = Fleet(repository=version.repository, servers=(server,), config_file=config)
            seen = fleet.observe(version.name)
        if seen.unreachable:
            use = f"{address} does not answer, so what it holds is unknown"
        elif version.version in seen.state.present():
            use = f"{address} serves it"
    if use is not None:
        raise RepositoryError(
            f"{version} may be in use ({use}), and files of such a version are never changed; "
            "write the records to a file (--output), or publish a new version with them"
        )
    return version


# --- golden -------------------------------------------------------------------------


def golden(args: argparse.Namespace) -> int:
    """Write recorded queries as JSON lines."""
    _positive("--requests", args.requests)
    log = selected_log(args)
    queries = distinct_queries(log, args.requests)
    lines = [json.dumps(query.line(), ensure_ascii=False) for query in queries]
    if args.output is None:
        write("\n".join(lines))
    else:
        args.output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if args.json:
            write_json({"file": str(args.output), "queries": len(lines)})
        else:
            write(f"{len(lines):,} queries: {args.output}")
    unsaid = sum({*query.arguments} > {*query.line()} for query in queries)
    if any({"exclude", "filter", "exclude_seen"} & {*query.arguments} for query in queries):
        progress(f"note: exclusions and filters are not part of the lines ({unsaid:,} queries)")
    print_notes(log)
    return 0


# --- replay -------------------------------------------------------------------------


def replay(args: argparse.Namespace) -> int:
    """Put recorded requests on a server; 1 if one failed."""
    pace = Pace.of(args.rate)
    for option in ("requests", "duration", "timeout", "in_flight"):
        _positive(f"--{option.replace('_', '-')}", getattr(args, option))
    log = selected_log(args)
    records = recorded_requests(log, args.requests)
    if pace.rate is None and records[-1].time == records[0].time and len(records) > 1:
        raise ValueError(
            "the records do not say when they were sent; give --rate a number of requests per "
            "second"
        )
    progress(f"sending {len(records):,} recorded requests")
    result = asyncio.run(
        send(
            plan(records, pace, duration=args.duration),
            args.address or [contract.DEFAULT_GRPC_ADDRESS],
            model=args.servable,
            version=args.version,
            label=args.label,
            timeout=args.timeout,
            in_flight=args.in_flight,
            security=security(args),
        )
    )
    if args.json:
        write_json({**result.as_json(), "left_out": dict(log.left_out)})
    else:
        write(_latencies(result))
        print_notes(log)
    rate = min(record.sampling_rate for record in records)
    if pace.rate is None and rate < 1:
        progress(f"note: the log holds {rate:.0%} of the requests; --rate {1 / rate:g}x sends all")
    if result.late:
        progress(
            f"note: {result.late:,} requests could not be sent in time, as this program could not "
            "keep up; ask for a lower rate, or run several"
        )
    return 1 if result.errors else 0


def _latencies(result: LoadResult) -> str:
    rows = [["latency in ms", "p50", "p90", "p99", "max"]]
    for name, latencies in (
        ("from when it was due", result.response),
        ("from when it was sent", result.service),
    ):
        values = latencies.as_json().values()
        rows.append([name, *(number(value, ".2f") for value in values)])
    rate = result.sent / max(result.seconds, 1e-9)
    lines = [
        (
            f"{result.sent:,} requests in {result.seconds:.1f} s ({rate:,.1f}/s), "
            f"{result.errors.total():,} failed"
        ),
        table(rows),
    ]
    lines += [f"{count:,} x {error}" for error, count in result.errors.most_common(5)]
    return "\n".join(lines)


# --- train --------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    """Write what users were shown."""
    from shortlist.serving.request_log.impressions import write_impressions

    _positive("-k", args.k)
    if args.output.suffix != ".parquet":
        raise ValueError(f"--output takes a file that ends in .parquet, got {args.output}")
    if not args.output.parent.is_dir():
        raise ValueError(f"--output: no folder {args.output.parent}")
    log = selected_log(args)
    written = write_impressions(log, Path(args.output), k=args.k)
    if args.json:
        write_json({"file": str(args.output), **asdict(written), "left_out": dict(log.left_out)})
    else:
        write(
            f"{written.rows:,} candidates in {written.lists:,} lists: {args.output} "
            f"({megabytes(written.bytes)} MB)"
        )
        print_notes(log)
    return 0
