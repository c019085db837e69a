"""`shortlist log show` and `log stats`."""

import argparse
import base64
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from shortlist.clients.cli.output import number, progress, table, write, write_json, write_table
from shortlist.clients.request_log.records import LogRecord
from shortlist.serving.request_log.selection import SelectedLog, Selection, printed_count
from shortlist.serving.request_log.stats import LogStats, collect

__all__ = ["print_notes", "selected_log", "show", "stats"]

_IDS = 3  # candidates of an answer in the table
_BAR = 32  # characters of the longest bar


def selected_log(args: argparse.Namespace) -> SelectedLog:
    """Return the log that the options name."""
    selection = Selection(
        model=args.model,
        version=args.of_version,
        label=args.of_label,
        user=getattr(args, "user", None),
    )
    return SelectedLog(args.log, selection)


def print_notes(log: SelectedLog) -> None:
    """Print what was left out of a log."""
    for note in log.notes():
        progress(f"note: {note}")


def show(args: argparse.Namespace) -> int:
    """Print recorded requests."""
    if args.last < 0:
        raise ValueError(f"-n must not be negative, got {args.last}")
    log = selected_log(args)
    records: Iterable[LogRecord] = deque(log, args.last) if args.last else log
    if args.json:
        for record in records:
            write_json(_as_json(record), indent=None)
    else:
        rows = [
            ["TIME", "MODEL", "VERSION", "LABEL", "SIGNATURE", "USERS", "ANSWER", "MS"],
            *map(_row, records),
        ]
        write_table(rows, text=range(7))
    log.require(log.count, "records")
    print_notes(log)
    return 0


def _row(record: LogRecord) -> list[str]:
    users, answer = "?", "not readable"
    with contextlib.suppress(ValueError):
        users, answer = _joined(record.user_ids, 2) or "-", _answer(record)
    return [
        _time(record.time),
        record.model,
        number(record.version, "d"),
        record.label or "-",
        record.signature if record.kind == "predict" else f"{record.kind} {record.signature}",
        users,
        answer,
        "-" if record.latency is None else f"{record.latency * 1e3:.2f}",
    ]


def _answer(record: LogRecord) -> str:
    lists = record.retrievals
    if not lists:
        return ", ".join(record.output_tensors) or "-"
    first = _joined(lists[0].candidate_ids, _IDS) or "empty"
    return f"{first} ({len(lists[0])})" + (f", {len(lists) - 1} more lists" if lists[1:] else "")


def _joined(values: Iterable[str], most: int) -> str:
    shown = list(values)
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def _time(seconds: float) -> str:
    if not seconds:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _as_json(record: LogRecord) -> dict[str, Any]:
    described = {
        "time": record.time,
        "kind": record.kind,
        "model": record.model,
        "version": record.version,
        "label": record.label,
        "signature": record.signature,
        "transport": record.transport,
        "latency_ms": None if record.latency is None else round(record.latency * 1e3, 3),
        "sampling_rate": round(record.sampling_rate, 6),
        "origin": record.origin,
    }
    if record.kind != "predict":
        return {**described, "message": MessageToDict(record.message)}
    try:
        tensors = {"inputs": _plain(record.inputs), "outputs": _plain(record.outputs)}
    except ValueError as exc:
        tensors = {"not_readable": str(exc)}
    return {**described, **tensors}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; bytes as TensorFlow Serving's REST API writes them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return str(value)
    return value


# --- stats --------------------------------------------------------------------------


def stats(args: argparse.Namespace) -> int:
    """Print figures of recorded requests."""
    log = selected_log(args)
    figures = collect(log)
    if args.json:
        write_json({**figures.as_json(), "left_out": dict(log.left_out)})
        return 0
    write("\n\n".join([_summary(figures), _parts(figures), _signatures(figures)]))
    if len(figures.rates()) > 1:
        write(f"\n{_rates(figures)}")
    print_notes(log)
    return 0


def _summary(figures: LogStats) -> str:
    about = "" if figures.users.exact else "about "
    lines = [f"{figures.requests:,} requests, {about}{figures.users.count:,} users"]
    if round(figures.estimated) > figures.requests:
        lines[0] += f"; a sample of about {printed_count(figures.estimated)} requests"
    if figures.first is not None and figures.last is not None:
        lines.append(f"from {_time(figures.first)} to {_time(figures.last)} (UTC)")
    if figures.sizes:
        sizes = ", ".join(f"{size} ({count:,})" for size, count in figures.sizes.most_common(5))
        lines.append(f"candidates in a list: {sizes}")
    by = ", ".join(f"{name} {count:,}" for name, count in figures.transports.most_common())
    lines.append(f"transport: {by}")
    return "\n".join(lines)


def _parts(figures: LogStats) -> str:
    head = ["model", "version", "label", "requests", "lists", "unknown users", "empty"]
    rows = [[*head, "p50 ms", "p90 ms", "p99 ms", "max ms"]]
    for (model, version, label), part in sorted(figures.parts.items(), key=str):
        rows.append(
            [
                model,
                number(version, "d"),
                label or "-",
                f"{part.requests:,}",
                f"{part.rows:,}",
                _share(part.unknown_users, part.told),
                _share(part.empty, part.rows),
                *(number(value, ".2f") for value in part.latencies.as_json().values()),
            ]
        )
    return table(rows, text=(0, 1, 2))


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _signatures(figures: LogStats) -> str:
    rows = [["model", "signature", "requests"]]
    for (model, signature), count in figures.signatures.most_common():
        rows.append([model, signature, f"{count:,}"])
    return table(rows, text=(0, 1))


def _rates(figures: LogStats) -> str:
    rates = figures.rates()
    most = max(rate for _, rate in rates)
    rows = [["from (UTC)", "requests/s", ""]]
    for start, rate in rates:
        shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(start))
        rows.append([shown, f"{rate:,.2f}", "█" * round(_BAR * rate / most)])
    return table(rows, text=(0, 2))
