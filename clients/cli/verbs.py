"""What `shortlist query`, `status` and `predict` do."""

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from typing import Any

from shortlist.clients import contract
from shortlist.clients.cli.arguments import name_value_pairs, security
from shortlist.clients.errors import ServableNotFound, ShortlistError
from shortlist.clients.types import Filter, ModelStatus, Retrieval

__all__ = ["predict", "query", "status", "table"]


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")


def table(rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; `numeric` ones flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def client_of(args: argparse.Namespace) -> Any:
    """The client that the connection options describe."""
    options: dict[str, Any] = {"timeout": args.timeout, **security(args)._asdict()}
    if args.address:
        options["address"] = args.address
    if args.transport == "grpc":
        from shortlist.clients.grpc import GrpcClient

        return GrpcClient(**options)
    from shortlist.clients.rest import RestClient

    return RestClient(**options)


def servable_of(args: argparse.Namespace) -> str:
    """The one servable that the options name."""
    if args.servable:
        return str(args.servable)
    return contract.servable_name(args.model, args.index or contract.DEFAULT_INDEX)


# --- query --------------------------------------------------------------------------


def query(args: argparse.Namespace) -> int:
    """Prints the candidates of some users."""
    with client_of(args) as client:
        found: list[Retrieval] = client.retrieve(
            args.users,
            k=args.k,
            exclude=args.exclude,
            exclude_seen=args.exclude_seen,
            filter=_filter(args),
            model=servable_of(args),
            version=args.version,
            label=args.label,
        )
    if args.json:
        _write(json.dumps([_as_json(one) for one in found], ensure_ascii=False, indent=2))
        return 0
    rows = [["USER", "RANK", "CANDIDATE", "SCORE"]]
    for one in found:
        for rank, (candidate_id, score) in enumerate(one, 1):
            rows.append([one.user_id, str(rank), candidate_id, f"{score:.4f}"])
    _write(table(rows, numeric=(1, 3)))
    for one in found:
        if one.known_user is False:
            note = "is not in the training data; strangers all get these candidates"
            sys.stderr.write(f"note: user {one.user_id!r} {note}\n")
        if not len(one):
            sys.stderr.write(f"note: no candidate is left for user {one.user_id!r}\n")
    return 0


def _filter(args: argparse.Namespace) -> Filter | None:
    def values(name: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, value in name_value_pairs(getattr(args, f"filter_{name}"), f"--filter-{name}"):
            found.setdefault(key, []).append(value)
        return found

    def bounds(name: str) -> dict[str, float]:
        found = {}
        for key, value in name_value_pairs(getattr(args, f"filter_{name}"), f"--filter-{name}"):
            try:
                found[key] = float(value)
            except ValueError:
                raise ShortlistError(f"--filter-{name} takes NAME=NUMBER, got {value!r}") from None
        return found

    chosen = Filter(any=values("any"), all=values("all"), min=bounds("min"), max=bounds("max"))
    return chosen if chosen != Filter() else None


def _as_json(one: Retrieval) -> dict[str, Any]:
    return {
        "user_id": one.user_id,
        "known_user": one.known_user,
        "version": one.version,
        "candidates": [{"candidate_id": name, "score": score} for name, score in one],
    }


# --- status --------------------------------------------------------------------------


def status(args: argparse.Namespace) -> int:
    """Prints the versions of one servable, or of all that a model has."""
    if args.servable or args.index:
        names = [servable_of(args)]
    else:
        names = [contract.servable_name(args.model, index) for index in contract.INDEXES]
    with client_of(args) as client:
        if args.wait is not None:
            found = [_waited(client, names, args)]
        else:
            found = _statuses(client, names, args)
    if args.json:
        _write(json.dumps([_status_json(one) for one in found], ensure_ascii=False, indent=2))
        return 0
    rows = [["SERVABLE", "VERSION", "STATE", "ERROR"]]
    for one in found:
        for entry in one.versions:
            error = "" if entry.error_message is None else entry.error_message
            rows.append(
                [one.model, str(entry.version), entry.state.name, " ".join(error.split())[:120]]
            )
    _write(table(rows, numeric=(1,)))
    return 0


def _waited(client: Any, names: list[str], args: argparse.Namespace) -> ModelStatus:
    if len(names) != 1:
        raise ShortlistError("--wait needs one servable; name it with --index or --servable")
    found: ModelStatus = client.wait_until_available(
        model=names[0], version=args.version, label=args.label, timeout=args.wait
    )
    return found


def _statuses(client: Any, names: list[str], args: argparse.Namespace) -> list[ModelStatus]:
    """Statuses of those servables that there are.

    Raises:
        ServingError: None is there, or the server does not answer.
    """
    if args.label is not None:
        for name in names:  # the server's status ignores labels; metadata resolves them
            resolved = client.metadata(model=name, label=args.label).version
            return [client.status(model=name, version=resolved)]
    found, missing = [], None
    for name in names:
        try:
            found.append(client.status(model=name, version=args.version))
        except ServableNotFound as error:
            missing = missing or error
    if not found and missing is not None:
        raise missing
    return found


def _status_json(one: ModelStatus) -> dict[str, Any]:
    return {
        "servable": one.model,
        "versions": [
            {
                "version": entry.version,
                "state": entry.state.name,
                "error_code": entry.error_code,
                "error_message": entry.error_message,
            }
            for entry in one.versions
        ],
    }


# --- predict -------------------------------------------------------------------------


def predict(args: argparse.Namespace) -> int:
    """Runs any signature and prints its outputs."""
    inputs = _inputs(args)
    with client_of(args) as client:
        found = client.predict(
            inputs,
            signature=args.signature,
            outputs=args.output,
            model=servable_of(args),
            version=args.version,
            label=args.label,
        )
    outputs = {name: _jsonable(value) for name, value in found.items()}
    if args.json:
        whole = {"model": found.model, "version": found.version, "outputs": outputs}
        _write(json.dumps(whole, ensure_ascii=False))
        return 0
    for name, value in outputs.items():
        _write(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return 0


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if args.inputs:
        try:
            if args.inputs == "-":
                text = sys.stdin.read()
            else:
                with open(args.inputs, encoding="utf-8") as file:
                    text = file.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise ShortlistError(f"--inputs {args.inputs}: {exc}") from exc
        given = _parsed(text, f"--inputs {args.inputs}")
        if not isinstance(given, dict):
            raise ShortlistError(f"--inputs {args.inputs}: expected a JSON object, by input name")
        found.update(given)
    for name, text in name_value_pairs(args.input, "--input"):
        found[name] = _parsed(text, f"--input {name}")
    if not found:
        raise ShortlistError("give at least one input: --input NAME=JSON or --inputs FILE")
    return {name: _bytes_of(value) for name, value in found.items()}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise ShortlistError(f"{where}: not JSON ({exc}); strings need quotes: '[\"a\"]'") from exc


def _bytes_of(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes_of(item) for item in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError) as exc:
            raise ShortlistError(f"not base64: {value['b64']!r}") from exc
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value
