"""Users, histories and features of `shortlist query`: options, or a file of JSON lines."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from shortlist.clients._calls.queries import checked_queries, feature_text
from shortlist.clients.cli.parser import name_value_pairs
from shortlist.clients.errors import ShortlistError
from shortlist.clients.types import Features

__all__ = ["QUERY_KEYS", "Asked", "asked_queries", "checked_row", "feature_texts"]

# Argument of `retrieve` by key of a line.
_ARGUMENTS: Final = {
    "user_id": "user_ids",
    "history": "history",
    "ages": "history_ages",
    "weights": "history_weights",
    "features": "features",
}
QUERY_KEYS: Final = frozenset(_ARGUMENTS)  # of a line
_FORMS: Final[dict[str, tuple[type, str]]] = {
    "user_id": (str, '"42"'),
    "history": (list, '["a", "b"]'),
    "ages": (list, "[60, 5]"),
    "weights": (list, "[1, 2]"),
    "features": (dict, '{"device": "mobile"}'),
}


class Asked(TypedDict, total=False):
    """Arguments of `retrieve`."""

    user_ids: Sequence[str]
    history: Sequence[Sequence[str]]
    history_ages: Sequence[Sequence[float | None]]
    history_weights: Sequence[Sequence[float]]
    features: Sequence[Features]


def asked_queries(args: argparse.Namespace) -> Asked:
    """Return the users, histories and features that the options name.

    Raises:
        ShortlistError: The options name no user, contradict each other, or the file is unreadable.
    """
    if args.history_file is not None:
        if args.users or args.history or args.feature:
            raise ShortlistError(
                "--history-file names users, histories and features itself; leave out USER, "
                "--history and --feature"
            )
        return _from_file(args.history_file)
    if args.history and len(args.users) > 1:
        raise ShortlistError(
            f"--history is the history of one user, got {len(args.users)} users; use --history-file"
        )
    if "" in (args.history or []):
        raise ShortlistError("--history takes a candidate id, got ''; leave it out")
    if not (args.users or args.history or args.feature):
        raise ShortlistError("name a user, or give --history, --feature or --history-file")
    asked = Asked()
    if args.users:
        asked["user_ids"] = args.users
    if args.history:
        asked["history"] = [args.history]
    if args.feature:
        features: dict[str, list[str]] = {}
        for name, value in name_value_pairs(args.feature, "--feature"):
            features.setdefault(name, []).append(value)
        asked["features"] = [features] * max(1, len(args.users))
    return asked


def _from_file(name: str) -> Asked:
    rows = [checked_row(line, where) for where, line in _lines(name)]
    if not rows:
        raise ShortlistError(f"--history-file {name}: no lines; write a JSON object in each")
    asked = Asked(user_ids=[row.get("user_id", "") for row in rows])
    keys = {key for row in rows for key in row}
    if keys & {"history", "ages", "weights"}:
        asked["history"] = [row.get("history", []) for row in rows]
    if "ages" in keys:
        asked["history_ages"] = [
            row.get("ages", [None] * len(row.get("history", []))) for row in rows
        ]
    if "weights" in keys:
        asked["history_weights"] = [
            row.get("weights", [1.0] * len(row.get("history", []))) for row in rows
        ]
    if "features" in keys:
        asked["features"] = [row.get("features", {}) for row in rows]
    return asked


def _lines(name: str) -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank, after its place."""
    option = f"--history-file {name}"
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as exc:
        raise ShortlistError(f"{option}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ShortlistError(f"{option}: not UTF-8 ({exc})") from exc
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{option}, line {number}", line


def checked_row(line: str, where: str) -> dict[str, Any]:
    """Return the object in a line.

    Raises:
        ShortlistError: It is not an object that `retrieve` takes.
    """
    try:
        row = json.loads(line)
    except ValueError as exc:
        raise ShortlistError(f"{where}: not JSON ({exc})") from exc
    if not isinstance(row, dict):
        raise ShortlistError(f'{where}: expected an object such as {{"history": ["a"]}}')
    row = {key: value for key, value in row.items() if value is not None}
    if unknown := sorted(set(row) - set(_ARGUMENTS)):
        raise ShortlistError(
            f"{where}: unknown key {unknown[0]!r}; the keys are {', '.join(_ARGUMENTS)}"
        )
    for key, value in row.items():
        form, example = _FORMS[key]
        if not isinstance(value, form):
            written = json.dumps(value, ensure_ascii=False)
            raise ShortlistError(f"{where}: {key!r} looks like {example}, got {written}")
    arguments = {"user_ids": [""]} | {_ARGUMENTS[key]: [value] for key, value in row.items()}
    try:
        checked_queries(**arguments)
    except ValueError as exc:
        raise ShortlistError(f"{where}: {_in_json(str(exc))}") from exc
    return row


def feature_texts(features: Features) -> dict[str, list[str]]:
    """Return the values of checked features as texts, several of a feature in a list."""
    return {
        name: [feature_text(name, item) for item in (value if isinstance(value, list) else [value])]
        for name, value in features.items()
    }


def _in_json(text: str) -> str:
    """Return a message about the arguments of `retrieve` in the words of a line."""
    for key, argument in _ARGUMENTS.items():
        text = text.replace(f"{argument}[0]", key).replace(argument, key)
    problem, semicolon, remedy = text.partition("; ")
    if remedy.startswith("use "):
        remedy = "in JSON, strings have quotes and numbers have none"
    return f"{problem}{semicolon}{remedy.replace('None', 'null')}"
