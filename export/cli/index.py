"""`shortlist index`."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import tell, write, write_json
from shortlist.export.cli.console import ConsoleProgress, command_name
from shortlist.export.cli.options import gate_settings
from shortlist.export.cli.summary import gate_lines, notable_gates, notice_if_live
from shortlist.export.config import OwnConfig

if TYPE_CHECKING:
    from shortlist.export.own.publish import OwnResult

__all__ = ["index"]


def index(args: argparse.Namespace) -> int:
    """Index towers or vectors, run the gates and publish."""
    config, gates = _config(args), gate_settings(args)
    from shortlist.export.gates.record import GateError
    from shortlist.export.preflight import check_paths, check_servables, log_left_out

    check_servables(config, args.repository, gates=gates)
    check_paths(
        {
            "--query-tower": args.query_tower,
            "--candidates": args.candidates,
            "--candidate-tower": args.candidate_tower,
            "--queries": args.queries,
            "--interactions": args.interactions,
        }
    )
    if not args.index:
        log_left_out(config.indexes)
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.own.publish import publish_model
    from shortlist.export.own.queries import Columns

    try:
        with ConsoleProgress() as console:
            result = publish_model(
                args.query_tower,
                args.candidates,
                args.repository,
                config=config,
                queries=args.queries,
                interactions=args.interactions,
                candidate_tower=args.candidate_tower,
                columns=Columns(
                    user=args.user_column,
                    candidate=args.candidate_column,
                    embedding=args.embedding_column,
                    title=args.title_column,
                ),
                signature=args.signature,
                output=args.output,
                candidate_signature=args.candidate_signature,
                gates=gates,
                progress=console,
            )
    except GateError as exc:
        tell(gate_lines(exc.results))
        raise
    if args.json:
        write_json(_as_json(result))
    else:
        write("\n".join(_lines(result, args.repository)))
    notice_if_live(args.repository, result.servables, result.version)
    return 0


def _config(args: argparse.Namespace) -> OwnConfig:
    values = {
        "model": args.model,
        "indexes": tuple(args.index or ()) or None,
        "top_k": args.top_k,
        "recall": args.recall,
        "target": args.target,
        "shards": args.shards,
        "batching": args.batching or None,
        "similarity": args.similarity,
        "seed": args.seed,
    }
    changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return OwnConfig(**changes)


def _as_json(result: "OwnResult") -> dict[str, Any]:
    return {
        "version": result.version,
        "servables": {name: str(path) for name, path in result.servables.items()},
        "report": str(result.report),
        "candidates": result.num_candidates,
        "inputs": list(result.inputs),
        "metrics": result.metrics,
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "gates": {
            name: {gate.gate: str(gate.verdict) for gate in gates}
            for name, gates in result.gates.items()
        },
    }


def _lines(result: "OwnResult", repository: Path) -> Sequence[str]:
    rates: Mapping[str, float] = result.metrics.get("seen_kept", {})
    shown = ", ".join(f"{name} {value:.4f}" for name, value in rates.items())
    return [
        f"published version {result.version}",
        *(f"  {name:<24} {path}" for name, path in result.servables.items()),
        f"  {'report':<24} {result.report}",
        f"  {'inputs':<24} {', '.join(result.inputs)}",
        *notable_gates(result.gates),
        "",
        *([f"{shown} (seen kept)", ""] if rates else []),
        f"serve it with: {command_name()} serve --repository {shlex.quote(str(repository))}",
    ]
