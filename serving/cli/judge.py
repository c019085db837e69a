"""Judging a canary by the options of `shortlist canary --judge`."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from shortlist.clients.cli.connection import security
from shortlist.clients.request_log.reading import log_files
from shortlist.serving.errors import RolloutError
from shortlist.serving.request_log.queries import sampled_queries
from shortlist.serving.request_log.selection import SelectedLog, Selection, is_request_log
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.judge.measures import Limits, Pair
from shortlist.serving.rollout.judge.traffic import read_users, recorded_pairs, replayed_pairs
from shortlist.serving.rollout.judge.verdict import Judgement, judge
from shortlist.serving.rollout.queries import known_queries
from shortlist.serving.rollout.shards import ShardedFleet

__all__ = ["judge_canary", "judge_limits"]

_SAMPLE: Final = 2000  # queries of a request log


def judge_limits(args: argparse.Namespace) -> Limits:
    """Return the limits of the options.

    Raises:
        ValueError: One is out of range.
        LogFileError: The queries are to come from a request log that does not exist.
    """
    if args.queries is not None and is_request_log(args.queries):
        log_files(args.queries)
    for option in ("duration", "rate"):
        if getattr(args, option) <= 0:
            raise ValueError(f"--{option} must be positive, got {getattr(args, option):g}")
    return Limits(
        errors=args.max_errors_more,
        slow=args.max_slow_more,
        latency_ratio=args.slow_ratio,
        min_overlap=args.min_overlap,
        alpha=args.alpha,
    )


def judge_canary(args: argparse.Namespace, fleet: Fleet, name: str, version: int) -> Judgement:
    """Judge the canary of one servable.

    Raises:
        RolloutError: There are no queries to replay.
        RepositoryError: A file of queries cannot be read.
        LogFileError: A request log cannot be read, or holds no retrieval of the model.
    """
    pairs: Iterator[Pair | None]
    sharded = fleet if isinstance(fleet, ShardedFleet) else None
    if args.events is not None:
        if sharded:
            raise RolloutError(
                f"--events records the shards of {name} one by one; leave it out to replay queries "
                "to all of them"
            )
        pairs = recorded_pairs(Path(args.events), name)
    else:
        fleet.observe(name)  # which tells the servers of shards
        pairs = replayed_pairs(
            [server.address for server in fleet.servers],
            sharded.group.servable if sharded else name,
            _queries(args, fleet, name, version),
            rate=args.rate,
            timeout=args.request_timeout,
            security=security(args),
            shards=list(sharded.addresses().values()) if sharded else (),
        )
    with closing(pairs):  # type: ignore[type-var]
        return judge(
            pairs,
            limits=judge_limits(args),
            duration=args.duration,
            answers=args.events is None,
        )


def _queries(
    args: argparse.Namespace, fleet: Fleet, name: str, version: int
) -> Sequence[Mapping[str, Any]]:
    if args.queries is not None and is_request_log(args.queries):
        log = SelectedLog(args.queries, Selection(model=name))
        recorded, _ = sampled_queries(log, _SAMPLE)
        return [query.arguments for query in recorded]
    if args.queries is not None:
        return [{"user_ids": [user]} for user in read_users(Path(args.queries))]
    queries = known_queries(fleet.repository.version_path(name, version)).by_user()
    if not queries:
        raise RolloutError(
            f"version {version} of {name!r} lists no user ids to query; give some, one per line, "
            "or a request log: --queries FILE"
        )
    return queries
