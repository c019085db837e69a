"""Replay the answers recorded from TensorFlow Serving against a server of the same API.

  python -m tests.conformance.replay --server "tensorflow_model_server {flags}"
  python -m tests.conformance.replay --server "CMD {flags}" --suite scenarios --only 'reload*'
  python -m tests.conformance.replay --grpc 127.0.0.1:8500 --rest 127.0.0.1:8501 --setup main

The last form asks a server that is already running, started as recorded/setups.json says.
recorded/README.md explains the layout and how each field is compared.
"""

import argparse
import fnmatch
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.compare import Difference, Masks, grpc_differences, http_differences
from tests.conformance.server import Ports, RunningServer, Server, Workshop
from tests.conformance.steps import prepare, scenario_differences
from tests.conformance.wire import Json
from tests.support.recorded import MODELS, RECORDED

__all__ = ["main"]

SUITES = ("rest", "grpc", "scenarios")
KINDS = ("status", "headers", "body", "text", "output")
_MOST_LINES = 6  # differences printed for one case

Result = tuple[Json, list[Difference]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all cases agree, 1 otherwise."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not (args.server or args.rest or args.grpc):
        parser.error("give --server, or --rest and/or --grpc of a running server")
    ignored = set(filter(None, args.ignore.split(",")))
    if unknown := ignored - set(KINDS):
        parser.error(f"--ignore knows {', '.join(KINDS)}; got {', '.join(sorted(unknown))}")
    replay = _Replay(args)
    report: Json = {"suites": {}, "cases": []}
    for suite in args.suite or SUITES:
        if (args.rest or args.grpc) and (suite == "scenarios" or not getattr(args, suite)):
            continue
        started, cases = time.monotonic(), []
        for case, result in replay.results(suite, replay.cases(suite)):
            differences = [entry for entry in result if entry.kind not in ignored]
            cases.append({"name": case["name"], "differences": differences})
            if differences and not args.quiet:
                lines = [f"    [{entry.kind}] {entry.text}" for entry in differences]
                _say(f"DISAGREES {suite}/{case['name']}", *lines[:_MOST_LINES])
        summary = _summary(cases, time.monotonic() - started)
        _say(
            "{}: {agree} of {cases} agree ({seconds} s); differences: {kinds}".format(
                suite, **summary
            )
        )
        report["suites"][suite] = summary
        report["cases"] += [
            {"suite": suite, "agrees": not case["differences"], **case} for case in cases
        ]
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False))
    agreements = [case["agrees"] for case in report["cases"]]
    return 0 if agreements and all(agreements) else 1


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _summary(cases: Sequence[Json], seconds: float) -> Json:
    agree = sum(not case["differences"] for case in cases)
    kinds = Counter(
        kind for case in cases for kind in {entry.kind for entry in case["differences"]}
    )
    return {
        "cases": len(cases),
        "agree": agree,
        "disagree": len(cases) - agree,
        "kinds": dict(kinds),
        "seconds": round(seconds, 1),
    }


class _Replay:
    """The cases of a corpus, and what a server answers to them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._setups: Json = json.loads((RECORDED / "setups.json").read_text())
        self._workshop = Workshop(
            command=args.server or "",
            models=args.models,
            work=args.work,
            ports=Ports(args.ports),
            mask=Masks(RECORDED / "masks.json"),
            keep=args.keep,
        )

    def cases(self, suite: str) -> list[Json]:
        """Return the cases of a suite that the command line asks for."""
        args = self._args
        return [
            case
            for case in _load_cases(args.corpus / suite)
            if (not args.only or fnmatch.fnmatch(case["name"], args.only))
            and (not args.setup or case.get("setup") == args.setup)
            and (args.scann == "both" or self._scann_cases(suite, case) in (None, args.scann))
        ]

    def _scann_cases(self, suite: str, case: Json) -> str | None:
        holder = case if suite == "scenarios" else self._setups[case["setup"]]
        value: str | None = holder.get("scann_cases")
        return value

    def results(self, suite: str, cases: list[Json]) -> Iterator[Result]:
        """Yield each case with its differences."""
        if suite != "scenarios":
            by_setup: dict[str, list[Json]] = {}
            for case in cases:
                by_setup.setdefault(case["setup"], []).append(case)
            for setup, members in by_setup.items():
                yield from self._requests(suite, setup, members)
            return
        with ThreadPoolExecutor(self._args.jobs) as pool:
            result = pool.map(lambda case: scenario_differences(case, self._workshop), cases)
            yield from zip(cases, result, strict=True)

    def _requests(self, suite: str, setup: str, cases: list[Json]) -> Iterator[Result]:
        """Ask one server, started as the setup says or already running, all its cases."""
        args, mask = self._args, self._workshop.mask
        server: RunningServer
        if args.rest or args.grpc:
            server = RunningServer(args.rest, args.grpc)
        else:
            server = Server(self._workshop)
            if problem := _start(server, setup, self._setups[setup]):
                server.close()
                yield from ((case, [Difference("status", problem)]) for case in cases)
                return
        try:
            for case in cases:
                request, expected, compare = case["request"], case["response"], case.get("compare")
                if suite == "rest":
                    got = server.http(request, compare=compare)
                    result = http_differences(
                        expected, got, mask, compare=compare, strict=args.strict
                    )
                else:
                    got = server.grpc(request)
                    result = grpc_differences(request["method"], expected, got, mask)
                yield case, result
        finally:
            server.close()


def _start(server: Server, name: str, setup: Json) -> str | None:
    """Start the server of a setup; return what went wrong."""
    prepare(server, setup["prepare"])
    outcome = server.start(setup["flags"], scann=setup.get("scann", False))
    if outcome.get("grpc_port_open") and outcome.get("rest_port_open"):
        return None
    tail = server.output_tail(20)
    return f"setup {name}: the server does not serve: {outcome} {tail}"[:500]


def _load_cases(folder: Path) -> list[Json]:
    cases: list[Json] = []
    for path in sorted(folder.glob("*")):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            cases += [json.loads(line) for line in text.split("\n") if line.strip()]
        elif path.suffix == ".json":
            cases.append(json.loads(text))
    return cases


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--corpus", type=Path, default=RECORDED, help="folder with rest/, grpc/ and scenarios/")
    add("--models", type=Path, default=MODELS, help="folder of the SavedModels")
    add("--server", help="command line with {flags} and, if wanted, {scann} (1 or 0)")
    add("--rest", help="host:port of a running server, for the suite rest")
    add("--grpc", help="host:port of a running server, for the suite grpc")
    add("--setup", help="only cases of this setup (see setups.json)")
    add("--suite", action="append", choices=SUITES, help="only this suite; can be repeated")
    add("--only", metavar="GLOB", help="only cases whose name matches")
    add("--ignore", default="", help=f"kinds that do not count, by commas: {', '.join(KINDS)}")
    add(
        "--scann",
        choices=("yes", "no", "both"),
        default="both",
        help="only cases that need the ScaNN ops (yes) or their absence (no)",
    )
    add("--strict", action="store_true", help="compare REST bodies byte for byte")
    add("--json", type=Path, metavar="FILE", help="write a report")
    add(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "conformance",
        help="folder of the working folders",
    )
    add("--ports", default="19000-19999", help="range of ports to serve on")
    add("--jobs", type=int, default=2, help="scenarios to run at once")
    add("--keep", action="store_true", help="keep the working folders")
    add("-q", "--quiet", action="store_true", help="print the summaries only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
