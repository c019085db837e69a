"""Runs the verbs of rollouts and prints what they say."""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shortlist.serving.cli.judge import judge_canary, judge_limits
from shortlist.serving.cli.rollout_options import (
    apply_options,
    config_path,
    opened_fleet,
    servables,
)
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.rollout.apply import Outcome, apply, preview
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import Fleet, Observation
from shortlist.serving.rollout.history import HISTORY_FILE, History
from shortlist.serving.rollout.lint import Severity
from shortlist.serving.rollout.lint import lint as lint_config
from shortlist.serving.rollout.plan import Step
from shortlist.serving.rollout.split_file import read_split, write_split
from shortlist.serving.rollout.state import CANARY, PREVIOUS, STABLE

__all__ = [
    "abort",
    "canary",
    "promote",
    "rollback",
    "rollout_apply",
    "rollout_lint",
    "rollout_log",
    "rollout_plan",
    "rollout_status",
]


def canary(args: argparse.Namespace) -> int:
    """Runs `shortlist canary`."""
    if not 0 <= args.percent <= 100:
        raise ValueError(f"--percent must lie between 0 and 100, got {args.percent:g}")
    if args.judge:
        judge_limits(args)  # refuse what makes no sense before anything moves
    status = _act(args, "canary")
    return _judge(args) if args.judge and not args.dry_run else status


def _judge(args: argparse.Namespace) -> int:
    """Judges each canary and acts on the verdict; 1 where one was rolled back."""
    judgements = {}
    with opened_fleet(args) as fleet:
        for name in servables(args, fleet, version=args.version):
            _progress(f"judging version {args.version} of {name} for {args.duration:g} s")
            judgement = judge_canary(args, fleet, name, args.version)
            judgements[name] = judgement.as_json()
            action = "promote" if judgement.promote else "abort"
            options = replace(
                apply_options(args),
                why=judgement.why,
                details={"judgement": judgement.as_json()},
            )
            apply(fleet, name, action, options=options, on_step=lambda step: _progress(str(step)))
            _share(args, fleet, name, action)
    record = json.dumps({"version": args.version, "judgements": judgements}, indent=2)
    if args.record is not None:
        try:
            Path(args.record).write_text(record + "\n", encoding="utf-8")
        except OSError as exc:
            raise RolloutError(f"cannot write {args.record}: {exc.strerror}") from exc
    if args.json:
        _write(record)
    else:
        for name, found in judgements.items():
            _write(f"{name}: {found['why']}")
    return 0 if all(found["verdict"] == "promote" for found in judgements.values()) else 1


def promote(args: argparse.Namespace) -> int:
    """Runs `shortlist promote`."""
    if args.soak is not None and args.soak < 0:
        raise ValueError(f"--soak must not be negative, got {args.soak:g}")
    status = _act(args, "promote")
    if args.soak is not None and not args.dry_run:
        _progress(f"waiting {args.soak:g} s before the version before is unloaded")
        time.sleep(args.soak)
        args.version = None
        return _act(args, "finish")
    return status


def rollback(args: argparse.Namespace) -> int:
    """Runs `shortlist rollback`."""
    return _act(args, "rollback")


def abort(args: argparse.Namespace) -> int:
    """Runs `shortlist abort`."""
    args.version = None
    return _act(args, "abort")


def rollout_plan(args: argparse.Namespace) -> int:
    """Runs `shortlist rollout plan`."""
    args.dry_run = True
    return _act(args, args.action)


def rollout_apply(args: argparse.Namespace) -> int:
    """Runs `shortlist rollout apply`."""
    return _act(args, args.action)


def _act(args: argparse.Namespace, action: str) -> int:
    with opened_fleet(args) as fleet:
        only = args.version if action == "canary" else None
        names = servables(args, fleet, version=only)
        plans = {name: preview(fleet, name, action, args.version) for name in names}
        if args.dry_run:
            _print_plans(args, plans)
            return 0
        outcomes = []
        for name in names:
            if not plans[name] and action == "rollback" and len(names) == 1:
                raise RolloutError(
                    f"{name!r} has no version before to go back to; name one: "
                    "`shortlist rollback --to VERSION` (`shortlist versions` lists them)"
                )
            for step in plans[name]:
                _progress(f"plan: {step}")
            outcomes.append(
                apply(
                    fleet,
                    name,
                    action,
                    args.version,
                    options=apply_options(args),
                    on_step=lambda step: _progress(f"now: {step}"),
                )
            )
            _share(args, fleet, name, action)
    _print_outcomes(args, outcomes)
    return 0


def _share(args: argparse.Namespace, fleet: Fleet, name: str, action: str) -> None:
    path = fleet.config_file.path
    if action == "canary":
        write_split(path, name, getattr(args, "percent", 5.0))
    elif action != "finish" and name in read_split(path):
        write_split(path, name, 0)


def _print_plans(args: argparse.Namespace, plans: dict[str, list[Step]]) -> None:
    if args.json:
        found = {name: [str(step) for step in steps] for name, steps in plans.items()}
        _write(json.dumps(found, indent=2))
        return
    for name, steps in plans.items():
        for number, step in enumerate(steps, 1):
            _write(f"{number}. {step}")
        if not steps:
            _write(f"{name}: nothing to do")


def _print_outcomes(args: argparse.Namespace, outcomes: list[Outcome]) -> None:
    if args.json:
        found = [
            {
                "servable": outcome.name,
                "labels": _labels(outcome),
                "versions": sorted(outcome.state.present()),
                "steps": [str(step) for step in outcome.steps],
                "unreachable": dict(outcome.unreachable),
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in outcomes
        ]
        _write(json.dumps(found, indent=2))
        return
    for outcome in outcomes:
        labels = ", ".join(f"{label} {version}" for label, version in _labels(outcome).items())
        count = len(outcome.steps)
        steps = f"{count} step{'s' if count > 1 else ''}" if count else "nothing to do"
        _write(f"{outcome.name}: {labels} ({steps}, {outcome.seconds:.1f} s)")
        for address, reason in outcome.unreachable.items():
            _write(f"{outcome.name}: left out {address}: {reason}")


def _labels(outcome: Outcome) -> dict[str, int | None]:
    return {label: outcome.state.label(label) for label in (STABLE, CANARY, PREVIOUS)}


def rollout_status(args: argparse.Namespace) -> int:
    """Runs `shortlist rollout status`; 1 where servers and file do not agree."""
    with opened_fleet(args) as fleet:
        found = {name: fleet.observe(name) for name in servables(args, fleet)}
    split = read_split(config_path(args))
    problems = {name: _problems(one) for name, one in found.items()}
    if args.json:
        shown = {
            name: {**_as_json(one), "split": split.get(name), "problems": problems[name]}
            for name, one in found.items()
        }
        _write(json.dumps(shown, indent=2))
    else:
        for name, one in found.items():
            _print_status(name, one, split.get(name))
            for problem in problems[name]:
                _write(f"  ! {problem}")
    return 1 if any(problems.values()) else 0


def _problems(found: Observation) -> list[str]:
    problems = [f"{address} does not answer: {why}" for address, why in found.unreachable.items()]
    recorded = found.state.recorded
    for server in found.state.servers:
        for version, reason in server.failed.items():
            problems.append(f"{server.address}: version {version} did not load: {reason}")
        for label in sorted(server.dangling):
            problems.append(f"{server.address}: label {label!r} points at no loaded version")
        if server.busy:
            busy = ", ".join(map(str, sorted(server.busy)))
            problems.append(f"{server.address}: version {busy} is loading or unloading")
        if recorded is not None and dict(server.labels) != dict(recorded.labels):
            problems.append(
                f"{server.address}: labels {dict(server.labels)} differ from the configuration "
                f"file's {dict(recorded.labels)}: a rollout was cut off, or somebody else moved "
                "them; give its command again, or `shortlist rollback`"
            )
    return problems


def _print_status(name: str, found: Observation, split: dict[str, float] | None) -> None:
    recorded = found.state.recorded
    versions = "the newest" if recorded is None or recorded.versions is None else recorded.versions
    _write(f"{name}")
    _write(f"  published  {_join(found.state.published)}")
    _write(f"  file       {versions if isinstance(versions, str) else _join(versions)}")
    for server in found.state.servers:
        labels = " ".join(f"{label}={at}" for label, at in sorted(server.labels.items()))
        _write(f"  {server.address}  AVAILABLE {_join(sorted(server.available))}  {labels}")
    if split is not None:
        _write("  split      " + " ".join(f"{label}={part:.2%}" for label, part in split.items()))


def _as_json(found: Observation) -> dict[str, Any]:
    recorded = found.state.recorded
    return {
        "published": list(found.state.published),
        "recorded": None if recorded is None else asdict(recorded),
        "servers": [
            {
                "address": server.address,
                "available": sorted(server.available),
                "busy": sorted(server.busy),
                "failed": {str(version): why for version, why in server.failed.items()},
                "labels": dict(server.labels),
                "dangling": sorted(server.dangling),
            }
            for server in found.state.servers
        ],
        "unreachable": dict(found.unreachable),
    }


def rollout_log(args: argparse.Namespace) -> int:
    """Runs `shortlist rollout log`."""
    records = History(Path(args.repository) / HISTORY_FILE).read()
    by_id: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_id.setdefault(str(record.get("id")), []).append(record)
    for rollout in list(by_id.values())[-args.last :]:
        if args.json:
            for record in rollout:
                _write(json.dumps(record, ensure_ascii=False))
        else:
            _write(_log_line(rollout))
    return 0


def _log_line(records: list[dict[str, Any]]) -> str:
    first, last = records[0], records[-1]
    end = {"done": "done", "failed": f"failed: {last.get('error')}"}.get(
        str(last.get("event")), "cut off, or under way"
    )
    version = first.get("version")
    if first.get("versions"):
        version = _join(first["versions"])
    what = f"{first.get('action')}{'' if version is None else f' {version}'}"
    why = f" ({first['why']})" if first.get("why") else ""
    return f"{first.get('when')}  {first.get('who')}  {first.get('servable')}  {what}{why}  {end}"


def rollout_lint(args: argparse.Namespace) -> int:
    """Runs `shortlist rollout lint`; 1 where there is an error."""
    findings = lint_config(
        ConfigFile(config_path(args)).read(), repository=ModelRepository(Path(args.repository))
    )
    if args.json:
        _write(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            _write(str(finding))
        if not findings:
            _write(f"{config_path(args)}: nothing found")
    return 1 if any(finding.severity is Severity.ERROR for finding in findings) else 0


def _join(values: Any) -> str:
    return ", ".join(str(value) for value in values) or "none"


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
