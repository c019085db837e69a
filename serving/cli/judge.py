"""Judging a canary by the options of `shortlist canary --judge`."""

import argparse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from shortlist.clients.cli.connection import security
from shortlist.serving.errors import RolloutError
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.judge.measures import Limits, Pair
from shortlist.serving.rollout.judge.traffic import read_users, recorded_pairs, replayed_pairs
from shortlist.serving.rollout.judge.verdict import Judgement, judge
from shortlist.serving.rollout.queries import UserQuery, known_queries

__all__ = ["judge_canary", "judge_limits"]


def judge_limits(args: argparse.Namespace) -> Limits:
    """Return the limits of the options.

    Raises:
        ValueError: One is out of range.
    """
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
    """
    pairs: Iterator[Pair | None]
    if args.events is not None:
        pairs = recorded_pairs(Path(args.events), name)
    else:
        pairs = replayed_pairs(
            [server.address for server in fleet.servers],
            name,
            _queries(args, fleet, name, version),
            rate=args.rate,
            timeout=args.request_timeout,
            security=security(args),
        )
    with closing(pairs):  # type: ignore[type-var]
        return judge(
            pairs,
            limits=judge_limits(args),
            duration=args.duration,
            answers=args.events is None,
        )


def _queries(args: argparse.Namespace, fleet: Fleet, name: str, version: int) -> list[UserQuery]:
    if args.queries is not None:
        return [UserQuery(user_id=user, features={}) for user in read_users(Path(args.queries))]
    queries = known_queries(fleet.repository.version_path(name, version)).by_user()
    if not queries:
        raise RolloutError(
            f"version {version} of {name!r} lists no user ids to query; give some, one per line: "
            "--queries FILE"
        )
    return queries
