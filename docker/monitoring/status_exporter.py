"""Export Prometheus metrics that a model server lacks: versions, labels, memory.

Each scrape asks the server's REST API for the status of each configured model, and `/proc` for
the server's process. Needs the standard library alone, so that any image with Python can run
it. Without a process namespace shared with the server, the process's metrics are left out.
"""

import argparse
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PREFIX = "shortlist_"
HELP = {
    "server_up": "1 if the server's REST API answered",
    "config_readable": "1 if the server's configuration file is readable",
    "model_available_versions": "Number of AVAILABLE versions",
    "version_state": "1 for the current state of the version",
    "version_failed": "1 for a version that ended with an error",
    "label_version": "Version that the label points at in the configuration",
    "label_available": "1 if the version that the label points at is AVAILABLE",
    "server_memory_limit_bytes": "Memory limit of the server, from --memory-limit",
    "server_resident_memory_bytes": "Resident memory of the server's process",
    "server_cpu_seconds_total": "CPU time of the server's process",
    "server_threads": "Threads of the server's process",
}
TOKEN = re.compile(
    r'#[^\n]*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[{}<>:\[\],;]|[^\s{}<>:\[\],;#"\']+'
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Name and labels of one configured model."""

    name: str
    labels: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One line of the exposition format."""

    metric: str
    labels: dict[str, str]
    value: float


def parse_text(text: str) -> list[tuple[str, Any]]:
    """Return the fields of a protobuf message in text form: strings, and lists for messages.

    Raises:
        ValueError: The text is not such a message.
    """
    tokens = [token for token in TOKEN.findall(text) if token[0] not in "#,;"]
    fields, end = _fields(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"unexpected {tokens[end]!r}")
    return fields


def _fields(tokens: Sequence[str], at: int) -> tuple[list[tuple[str, Any]], int]:
    fields: list[tuple[str, Any]] = []
    while at < len(tokens) and tokens[at] not in ("}", ">"):
        name, at = tokens[at], at + 1
        if at < len(tokens) and tokens[at] == ":":
            at += 1
        if at >= len(tokens):
            raise ValueError(f"{name} has no value")
        if tokens[at] == "[":  # a list of plain values: not needed here
            at = tokens.index("]", at) + 1
        elif tokens[at] in ("{", "<"):
            inner, at = _fields(tokens, at + 1)
            if at >= len(tokens):
                raise ValueError(f"{name} is not closed")
            fields.append((name, inner))
            at += 1
        else:
            fields.append((name, tokens[at].strip("\"'")))
            at += 1
    return fields, at


def read_models(config: Path) -> list[Model]:
    """Return the models of a `ModelServerConfig` file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not such a configuration.
    """
    return [
        Model(
            name=next((value for field, value in entry if field == "name"), ""),
            labels={
                dict(label)["key"]: int(dict(label)["value"])
                for field, label in entry
                if field == "version_labels"
            },
        )
        for outer, models in parse_text(config.read_text(encoding="utf-8"))
        if outer == "model_config_list"
        for field, entry in models
        if field == "config"
    ]


def versions_of(server: str, model: str, timeout: float) -> list[dict[str, Any]]:
    """Return the status of each version; empty if the server does not know the model.

    Raises:
        OSError: The server did not answer.
    """
    try:
        with urllib.request.urlopen(f"{server}/v1/models/{model}", timeout=timeout) as answer:
            status: list[dict[str, Any]] = json.load(answer)["model_version_status"]
            return status
    except urllib.error.HTTPError as exc:
        if exc.code == 404:
            return []
        raise


def _of_model(model: Model, versions: Sequence[dict[str, Any]]) -> Iterator[Sample]:
    name = {"model": model.name}
    available = {int(each["version"]) for each in versions if each["state"] == "AVAILABLE"}
    yield Sample(metric="model_available_versions", labels=name, value=len(available))
    for each in versions:
        of_version = name | {"version": each["version"]}
        yield Sample(metric="version_state", labels=of_version | {"state": each["state"]}, value=1)
        code = each.get("status", {}).get("error_code", "OK")
        if each["state"] == "END" and code != "OK":
            yield Sample(metric="version_failed", labels=of_version | {"code": code}, value=1)
    for label, version in model.labels.items():
        of_label = name | {"label": label}
        yield Sample(metric="label_version", labels=of_label, value=version)
        yield Sample(metric="label_available", labels=of_label, value=version in available)


def of_models(server: str, config: Path, timeout: float) -> Iterator[Sample]:
    """Yield whether the server answers, and the state of every configured model."""
    try:
        models = read_models(config)
    except (OSError, ValueError, KeyError) as exc:
        _log(f"cannot read {config}: {exc}")
        yield Sample(metric="config_readable", labels={}, value=0)
        return
    yield Sample(metric="config_readable", labels={}, value=1)
    samples: list[Sample] = []
    try:
        for model in models:
            samples.extend(_of_model(model, versions_of(server, model.name, timeout)))
    except (OSError, ValueError, KeyError) as exc:
        _log(f"{server} does not answer: {exc}")
        yield Sample(metric="server_up", labels={}, value=0)
        return
    yield Sample(metric="server_up", labels={}, value=1)
    yield from samples


def size_bytes(text: str) -> int:
    """Return a size in bytes from Docker's or Kubernetes' notation: 4g, 512m, 4Gi, 4294967296.

    Raises:
        ValueError: The text is not such a size.
    """
    match = re.fullmatch(r"(\d+)([bkmg]?)(?:i?b?)", text.strip().lower())
    if match is None:
        raise ValueError(f"not a size: {text!r}; write 4g, 512m or a number of bytes")
    return int(match[1]) * 1024 ** {"": 0, "b": 0, "k": 1, "m": 2, "g": 3}[match[2]]


def of_process(names: Sequence[str], proc: Path = Path("/proc")) -> Iterator[Sample]:
    """Yield memory, CPU time and threads of the first process that runs one of the programs."""
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            # A shell, or an init that forwards signals, names the program later in its line.
            program = arguments[2] if arguments[1:2] == ["-m"] else Path(arguments[0]).name
            if program not in names:
                continue
            status = dict(
                line.split(":", 1) for line in (folder / "status").read_text().splitlines()
            )
            # After the command's name in brackets: state is field 3, utime 14, stime 15.
            times = (folder / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError, ValueError):
            continue  # the process has ended
        ticks = int(times[11]) + int(times[12])
        yield Sample(
            metric="server_resident_memory_bytes",
            labels={},
            value=int(status["VmRSS"].split()[0]) * 1024,
        )
        yield Sample(
            metric="server_cpu_seconds_total", labels={}, value=ticks / os.sysconf("SC_CLK_TCK")
        )
        yield Sample(metric="server_threads", labels={}, value=int(status["Threads"]))
        return


def render(samples: Sequence[Sample]) -> str:
    """Return the exposition format, in which the samples of a metric stand together."""
    lines: list[str] = []
    for metric, text in HELP.items():
        of_metric = [sample for sample in samples if sample.metric == metric]
        if not of_metric:
            continue
        kind = "counter" if metric.endswith("_total") else "gauge"
        lines += [f"# HELP {PREFIX}{metric} {text}.", f"# TYPE {PREFIX}{metric} {kind}"]
        for sample in of_metric:
            pairs = ",".join(f"{key}={json.dumps(text)}" for key, text in sample.labels.items())
            lines.append(f"{PREFIX}{metric}{f'{{{pairs}}}' if pairs else ''} {sample.value:.15g}")
    return "".join(line + "\n" for line in lines)


def of_file(path: Path) -> str:
    """Return the metrics in a file, such as that of `shortlist monitor`; none if it is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as exc:
        _log(f"cannot read {path}: {exc}")
        return ""
    return text if text.endswith("\n") or not text else f"{text}\n"


def _handler(args: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            samples = [*of_models(args.server, args.config, args.timeout)]
            if args.memory_limit is not None:
                samples.append(
                    Sample(metric="server_memory_limit_bytes", labels={}, value=args.memory_limit)
                )
            body = render([*samples, *of_process(args.process)])
            body = (body + "".join(map(of_file, args.metrics_file))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *message: Any) -> None:
            """Do not log each scrape."""

    return Handler


def _log(message: str) -> None:
    sys.stderr.write(f"status_exporter: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve `/metrics` until SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0] if __doc__ else None,
        epilog="example: status_exporter.py --server http://127.0.0.1:8501 "
        "--config models/.serving/models.config",
    )
    parser.add_argument("--server", required=True, help="address of the REST API, http://HOST:PORT")
    parser.add_argument(
        "--config", required=True, type=Path, help="configuration file of the server"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:9500", help="HOST:PORT to serve on (default: 127.0.0.1:9500)"
    )
    parser.add_argument(
        "--process", action="append", default=[], help="program of the server; can be repeated"
    )
    parser.add_argument(
        "--memory-limit", type=size_bytes, help="memory limit of the server: 4g, 4Gi, 512m"
    )
    parser.add_argument(
        "--metrics-file",
        action="append",
        type=Path,
        default=[],
        help="file of further metrics, such as that of `shortlist monitor`; can be repeated",
    )
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds to wait for an answer")
    args = parser.parse_args(argv)
    host, _, port = args.listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), _handler(args))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _log(f"serving http://{host}:{server.server_port}/metrics")
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
