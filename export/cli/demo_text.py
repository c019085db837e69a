"""What `shortlist demo` prints."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from shortlist.export.cli.demo import Answer, DemoReport, history

__all__ = ["as_json", "as_text"]

MIN_COLUMN = 18


def as_text(report: DemoReport, repository: Path, *, width: int | None = None) -> str:
    """The demo's outcome for a person: answers beside histories, quality, what to do next."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    titles = dict(zip(report.dataset.candidate_ids, report.dataset.titles, strict=True))
    lines: list[str] = []
    for user_id, answers in groupby(report.answers, key=lambda answer: answer.user_id):
        columns = [("liked best", history(report.dataset, user_id))]
        # Servables that agree share a column, which leaves more room for the titles.
        for candidate_ids, agreeing in _by_answer(answers).items():
            columns.append((", ".join(agreeing), [titles[found] for found in candidate_ids]))
        lines += ["", f"user {user_id}", *_side_by_side(columns, width)]
    lines += ["", *_quality(report), "", *_next_steps(report, repository)]
    return "\n".join(lines)


def _by_answer(answers: Iterable[Answer]) -> dict[tuple[str, ...], list[str]]:
    """Names of the servables by what they answered."""
    found: dict[tuple[str, ...], list[str]] = {}
    for answer in answers:
        found.setdefault(answer.retrieval.candidate_ids, []).append(answer.servable)
    return found


def _side_by_side(columns: Sequence[tuple[str, Sequence[str]]], width: int) -> list[str]:
    each = max(MIN_COLUMN, (width - 2) // len(columns) - 2)
    heads = [textwrap.wrap(head, each) for head, _ in columns]
    rows = [*_rows(heads), ["-" * each] * len(columns), *_rows([rows for _, rows in columns])]
    return ["  " + "  ".join(_fit(cell, each) for cell in row).rstrip() for row in rows]


def _rows(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Columns of unequal length as rows, filled up with empty cells."""
    return [list(row) for row in zip_longest(*columns, fillvalue="")]


def _fit(text: str, width: int) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':{width}}"


def _quality(report: DemoReport) -> list[str]:
    kept, excluded = report.export.metrics["seen_kept"], report.export.metrics["seen_excluded"]
    lines = ["on held-out interactions    seen kept  seen excluded"]
    lines += [
        f"  {name:24} {kept[name]:10.3f} {excluded[name]:14.3f}"
        for name in kept
        if name.startswith("hit_rate@")
    ]
    if report.export.report is not None:
        lines.append(f"more of it, for a browser: {report.export.report}")
    lines.append(f"all of it took {report.total_seconds:.0f} s")
    return lines


def _next_steps(report: DemoReport, repository: Path) -> list[str]:
    user_id = report.answers[0].user_id
    quoted = f"'{user_id}'" if not user_id.isalnum() else user_id
    command = _command()
    return [
        "go on with",
        f"  {command} serve --repository {repository}",
        f"  {command} query {quoted} -k 5 --transport grpc    (in another terminal)",
        f"  {command} export --data FILE.csv --repository {repository}    (data of your own)",
    ]


def _command() -> str:
    """How the user has to spell this command: as it was called where it is not on PATH."""
    called = Path(sys.argv[0])
    return (
        str(called) if called.name == "shortlist" and not shutil.which("shortlist") else "shortlist"
    )


def as_json(report: DemoReport) -> dict[str, Any]:
    """The same for machines."""
    return {
        "data": report.dataset.name,
        "server": report.server,
        "version": report.export.version,
        "servables": {name: str(path) for name, path in report.export.servables.items()},
        "metrics": report.export.metrics,
        "answers": [
            {
                "servable": answer.servable,
                "user_id": answer.user_id,
                "candidate_ids": list(answer.retrieval.candidate_ids),
                "scores": list(answer.retrieval.scores),
            }
            for answer in report.answers
        ],
        "seconds": {step: round(seconds, 3) for step, seconds in report.seconds.items()},
        "total_seconds": round(report.total_seconds, 3),
    }
