"""`shortlist predict`."""

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

from shortlist.clients.cli.connection import named_servable, open_client
from shortlist.clients.cli.output import write, write_json
from shortlist.clients.cli.parser import name_value_pairs
from shortlist.clients.errors import ShortlistError

__all__ = ["predict"]


def predict(args: argparse.Namespace) -> int:
    """Run a signature and print its outputs."""
    inputs = _inputs(args)
    with open_client(args) as client:
        try:
            prediction = client.predict(
                inputs,
                signature=args.signature,
                outputs=args.output,
                model=named_servable(args),
                version=args.version,
                label=args.label,
            )
        except ValueError as exc:
            problem, unfit, _ = str(exc).partition(" does not fit ")
            if not unfit:
                raise
            # The remedies of the client are in Python.
            kind = str(exc).removeprefix(problem).partition(";")[0]
            raise ShortlistError(
                f"{problem}{kind}; in JSON, strings have quotes and numbers have none"
            ) from exc
    outputs = {name: _jsonable(value) for name, value in prediction.items()}
    if args.json:
        document = {"model": prediction.model, "version": prediction.version, "outputs": outputs}
        write_json(document, indent=None)
    else:
        for name, value in outputs.items():
            write(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return 0


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if args.inputs:
        option = f"--inputs {args.inputs}"
        try:
            text = (
                sys.stdin.read()
                if args.inputs == "-"
                else Path(args.inputs).read_text(encoding="utf-8")
            )
        except OSError as exc:
            raise ShortlistError(f"{option}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise ShortlistError(f"{option}: not UTF-8 ({exc})") from exc
        document = _parse(text, option)
        if not isinstance(document, dict):
            raise ShortlistError(f"{option}: expected a JSON object with the inputs by name")
        inputs.update(document)
    for name, text in name_value_pairs(args.input, "--input"):
        inputs[name] = _parse(text, f"--input {name}")
    if not inputs:
        raise ShortlistError("give at least one input: --input NAME=JSON or --inputs FILE")
    return {name: _decode_bytes(value) for name, value in inputs.items()}


def _parse(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise ShortlistError(f"{option}: not JSON ({exc}); strings need quotes: '[\"a\"]'") from exc


def _decode_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode_bytes(item) for item in value]
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
