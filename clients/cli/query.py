"""`shortlist query`."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from shortlist.clients import RetrievalClient, ShardedClient
from shortlist.clients.cli.connection import named_servable, open_client, open_sharded
from shortlist.clients.cli.histories import Asked, asked_queries
from shortlist.clients.cli.output import progress, write_json, write_table
from shortlist.clients.cli.retrieval import filter_options, retrieval_options
from shortlist.clients.errors import ShortlistError
from shortlist.clients.interface import RetrievalInterface, find_interface
from shortlist.clients.types import Retrieval

__all__ = ["notes", "query"]


def query(args: argparse.Namespace) -> int:
    """Print the candidates of some users."""
    asked, options = asked_queries(args), retrieval_options(args)
    interface = _interface(args)
    if args.shards is not None and interface is not None:
        raise ShortlistError(
            "--shards is for models of `shortlist export`, whose tensors are known"
        )
    sharded = args.shards is not None
    with open_sharded(args) if sharded else open_client(args, interface) as client:
        retrievals = client.retrieve(
            **asked,
            k=options.k,
            exclude=options.exclude,
            exclude_history=options.exclude_history,
            exclude_seen=options.exclude_seen,
            filter=options.filter,
            model=named_servable(args),
            version=args.version,
            label=args.label,
        )
        positions = "" if sharded else _positions(client, args, interface, retrievals)
    if args.json:
        write_json([_as_json(retrieval, sharded=sharded) for retrieval in retrievals])
        return 0
    rows = [["USER", "RANK", "CANDIDATE", "SCORE"]]
    for retrieval in retrievals:
        for rank, (candidate_id, score) in enumerate(retrieval, 1):
            rows.append([retrieval.user_id or "-", str(rank), candidate_id, f"{score:.4f}"])
    write_table(rows, text=(0, 2))
    for note in notes(retrievals, asked):
        progress(f"note: {note}")
    if options.filter is not None and not any(map(len, retrievals)):
        progress(f"note: {_filter_note(args)}")
    if positions:
        progress(f"note: {positions}")
    return 0


def _interface(args: argparse.Namespace) -> RetrievalInterface | None:
    """Return the tensors that the options choose; `None` without such options.

    Raises:
        ServingError: The servable's metadata cannot be read.
        NoInterfaceError: The options do not fit them.
    """
    names = {
        "signature": args.signature,
        "query": args.input,
        "ids": args.ids,
        "scores": args.scores,
    }
    if not any(names.values()):
        return None
    with open_client(args) as client:
        metadata = client.metadata(
            model=named_servable(args), version=args.version, label=args.label
        )
    return find_interface(metadata.signatures, **names)


def _positions(
    client: "RetrievalClient | ShardedClient",
    args: argparse.Namespace,
    interface: RetrievalInterface | None,
    retrievals: Sequence[Retrieval],
) -> str:
    """Return a note if the candidate ids may be positions; empty if they certainly are not."""
    ids = {candidate_id for retrieval in retrievals for candidate_id in retrieval.candidate_ids}
    if args.json or not ids or not all(map(str.isdecimal, ids)):
        return ""
    metadata = client.metadata(model=named_servable(args), version=args.version, label=args.label)
    found = interface or find_interface(metadata.signatures)
    if metadata.signatures[found.signature].outputs[found.ids].dtype != "DT_INT32":
        return ""
    return (
        f"the candidate ids ({found.ids}) are int32: positions in the corpus, if the index was "
        "built without identifiers"
    )


def notes(retrievals: Sequence[Retrieval], asked: Asked) -> Iterator[str]:
    """Yield what the table does not show."""
    features = asked.get("features") or [{}] * len(retrievals)
    unknown: list[str] = []
    personal: list[str] = []
    for retrieval, values in zip(retrievals, features, strict=True):
        if retrieval.known_user is False:
            told = values if retrieval.known_features is None else retrieval.known_features
            (personal if retrieval.known_history or told else unknown).append(retrieval.user_id)
    if any(unknown):
        yield f"{_are(unknown)} unknown to the model; all unknown users get these candidates"
    elif unknown:
        yield "without a known user, history or feature, everybody gets the same candidates"
    if named := [user_id for user_id in personal if user_id]:
        yield (
            f"{_are(named)} unknown to the model; the candidates follow from history and "
            "features alone"
        )
    events = sum(map(len, asked.get("history") or []))
    missing = events - sum(retrieval.known_history or 0 for retrieval in retrievals)
    if missing:
        verb = "is" if missing == 1 else "are"
        yield f"{missing} of {events} candidates in the history {verb} unknown to the model"
    given = [
        sum(len(value) if isinstance(value, list) else 1 for value in values.values())
        for values in features
    ]
    missing = sum(
        count - retrieval.known_features
        for count, retrieval in zip(given, retrievals, strict=True)
        if retrieval.known_features is not None
    )
    if missing:
        verb = "is" if missing == 1 else "are"
        yield (
            f"{missing} of {sum(given)} features {verb} unknown to the model; `features` in the "
            "version's manifest has the names and values that it knows"
        )
    if missing_shards := sorted({n for retrieval in retrievals for n in retrieval.shards_missing}):
        yield (
            f"{'shard' if len(missing_shards) == 1 else 'shards'} "
            f"{', '.join(map(str, missing_shards))} did not answer; their candidates are missing"
        )
    if empty := [retrieval.user_id for retrieval in retrievals if not len(retrieval)]:
        yield f"no candidates are left for {_users(empty)}"


def _are(user_ids: list[str]) -> str:
    return f"{_users(user_ids)} {'is' if len(user_ids) == 1 else 'are'}"


def _users(user_ids: list[str]) -> str:
    """Return the users for a sentence, at most three by name."""
    if len(user_ids) == 1:
        return f"user {user_ids[0]!r}" if user_ids[0] else "the user without an id"
    names = ", ".join(repr(user_id) if user_id else "-" for user_id in user_ids[:3])
    return f"{len(user_ids)} users ({names}{', …' if len(user_ids) > 3 else ''})"


def _filter_note(args: argparse.Namespace) -> str:
    """Return what to look at if nothing is left; the servable does not tell its values."""
    return (
        f"perhaps no candidate satisfies {filter_options(args)}; check the spelling of the "
        "values, which `shortlist inspect` shows"
    )


def _as_json(retrieval: Retrieval, *, sharded: bool) -> dict[str, Any]:
    return {
        "user_id": retrieval.user_id or None,
        "known_user": retrieval.known_user,
        "known_history": retrieval.known_history,
        "known_features": retrieval.known_features,
        "version": retrieval.version,
        **({"shards_missing": list(retrieval.shards_missing)} if sharded else {}),
        "candidates": [
            {"candidate_id": candidate_id, "score": score} for candidate_id, score in retrieval
        ],
    }
