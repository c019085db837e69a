"""`shortlist status`."""

import argparse
from typing import Any

from shortlist.clients import RetrievalClient, contract
from shortlist.clients._arguments import seconds
from shortlist.clients.cli.connection import named_servable, open_client
from shortlist.clients.cli.output import write_json, write_table
from shortlist.clients.errors import ServableNotFound, ShortlistError
from shortlist.clients.types import ModelStatus

__all__ = ["status"]

_ERROR_WIDTH = 120


def status(args: argparse.Namespace) -> int:
    """Print the versions of one servable, or of all servables of a model."""
    if args.servable or args.index:
        names = [named_servable(args)]
    else:
        names = [contract.servable_name(args.model, index) for index in contract.INDEXES]
    with open_client(args) as client:
        if args.wait is not None:
            statuses = [_wait(client, names, args)]
        else:
            statuses = _statuses(client, names, args)
    if args.json:
        write_json([_as_json(model) for model in statuses])
        return 0
    rows = [["SERVABLE", "VERSION", "STATE", "ERROR"]]
    for model in statuses:
        for version in model.versions:
            error = " ".join((version.error_message or "").split())[:_ERROR_WIDTH]
            rows.append([model.model, str(version.version), version.state.name, error])
    write_table(rows, text=(0, 2, 3))
    return 0


def _wait(client: RetrievalClient, names: list[str], args: argparse.Namespace) -> ModelStatus:
    if len(names) != 1:
        raise ShortlistError("--wait needs one servable; name it with --index or --servable")
    timeout = seconds("--wait", args.wait)
    return client.wait_until_available(
        model=names[0], version=args.version, label=args.label, timeout=timeout
    )


def _statuses(
    client: RetrievalClient, names: list[str], args: argparse.Namespace
) -> list[ModelStatus]:
    """Return the statuses of the servables that exist.

    Raises:
        ServingError: None exists, or the server does not answer.
    """
    if args.label is not None:
        # The server's status ignores labels; metadata resolves them.
        version = client.metadata(model=names[0], label=args.label).version
        return [client.status(model=names[0], version=version)]
    statuses, missing = [], None
    for name in names:
        try:
            statuses.append(client.status(model=name, version=args.version))
        except ServableNotFound as error:
            missing = missing or error
    if not statuses and missing is not None:
        raise missing
    return statuses


def _as_json(model: ModelStatus) -> dict[str, Any]:
    return {
        "servable": model.model,
        "versions": [
            {
                "version": version.version,
                "state": version.state.name,
                "error_code": version.error_code,
                "error_message": version.error_message,
            }
            for version in model.versions
        ],
    }
