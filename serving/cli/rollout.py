"""`shortlist canary`, `promote`, `rollback`, `abort` and `rollout …`."""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shortlist.clients.cli.output import printable, progress, write, write_json
from shortlist.clients.cli.progress import working
from shortlist.serving.cli.fleet import (
    apply_options,
    config_path,
    fleet_for,
    mover,
    opened_fleet,
    servables,
)
from shortlist.serving.cli.judge import judge_canary, judge_limits
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, STABLE
from shortlist.serving.rollout.apply import Outcome, apply, preview
from shortlist.serving.rollout.config import ConfigFile, read_split, write_split
from shortlist.serving.rollout.fleet import Fleet, Observation
from shortlist.serving.rollout.goals import NothingToDoError
from shortlist.serving.rollout.history import HISTORY_FILE, History, RecordedRollout
from shortlist.serving.rollout.lint import Severity
from shortlist.serving.rollout.lint import lint as lint_config
from shortlist.serving.rollout.plan import Step
from shortlist.serving.rollout.state import CANARY, PREVIOUS

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
    """Run `shortlist canary`."""
    if not 0 <= args.percent <= 100:
        raise ValueError(f"--percent must be between 0 and 100, got {args.percent:g}")
    if args.judge:
        judge_limits(args)  # refuse wrong limits before anything moves
    status = _act(args, "canary")
    return _judge(args) if args.judge and not args.dry_run else status


def _judge(args: argparse.Namespace) -> int:
    """Judge each canary and act on the verdict; 1 if one was rolled back."""
    judgements = {}
    with opened_fleet(args) as whole:
        for name in servables(args, whole, version=args.version):
            progress(f"judging version {args.version} of {name} for {args.duration:g} s")
            fleet = fleet_for(args, whole, name)
            with working("judge"):
                judgement = judge_canary(args, fleet, name, args.version)
            judgements[name] = judgement.as_json()
            action = "promote" if judgement.promote else "abort"
            options = replace(
                apply_options(args),
                why=judgement.why,
                details={"judgement": judgement.as_json()},
            )
            apply(fleet, name, action, options=options, on_step=lambda step: progress(str(step)))
            _share(args, fleet, name, action)
    record = {"version": args.version, "judgements": judgements}
    if args.record is not None:
        try:
            text = json.dumps(record, indent=2)
            Path(args.record).write_text(f"{text}\n", encoding="utf-8")
        except OSError as exc:
            raise RolloutError(f"cannot write {args.record}: {exc.strerror}") from exc
    if args.json:
        write_json(record)
    else:
        for name, verdict in judgements.items():
            write(f"{name}: {verdict['why']}")
    return 0 if all(verdict["verdict"] == "promote" for verdict in judgements.values()) else 1


def promote(args: argparse.Namespace) -> int:
    """Run `shortlist promote`."""
    if args.soak is not None and args.soak < 0:
        raise ValueError(f"--soak must not be negative, got {args.soak:g}")
    status = _act(args, "promote")
    if args.soak is not None and not args.dry_run:
        progress(f"waiting {args.soak:g} s before the previous version is unloaded")
        time.sleep(args.soak)
        args.version = None
        return _act(args, "finish")
    return status


def rollback(args: argparse.Namespace) -> int:
    """Run `shortlist rollback`."""
    return _act(args, "rollback")


def abort(args: argparse.Namespace) -> int:
    """Run `shortlist abort`."""
    args.version = None
    return _act(args, "abort")


def rollout_plan(args: argparse.Namespace) -> int:
    """Run `shortlist rollout plan`."""
    args.dry_run = True
    return _act(args, args.action)


def rollout_apply(args: argparse.Namespace) -> int:
    """Run `shortlist rollout apply`."""
    return _act(args, args.action)


def _act(args: argparse.Namespace, action: str) -> int:
    with opened_fleet(args) as fleet:
        only = args.version if action == "canary" else None
        names = servables(args, fleet, version=only)
        plans = _plans(args, fleet, names, action)
        args.servable = list(plans)  # what follows, such as a soak, is for the same models
        if args.dry_run:
            _print_plans(args, plans)
            return 0
        outcomes = []
        for name, plan in plans.items():
            for step in plan:
                progress(f"plan: {step}")
            outcomes.append(
                apply(
                    mover(args, fleet, name),
                    name,
                    action,
                    args.version,
                    options=apply_options(args),
                    on_step=lambda step: progress(f"now: {step}"),
                )
            )
            _share(args, fleet, name, action)
    _print_outcomes(args, outcomes)
    return 0


def _plans(
    args: argparse.Namespace, fleet: Fleet, names: list[str], action: str
) -> dict[str, list[Step]]:
    """Return the steps by model; of unnamed models, only those with something to do take part.

    Raises:
        RolloutError: The action does not fit a model's state.
    """
    plans: dict[str, list[Step]] = {}
    idle: list[NothingToDoError] = []
    for name in names:
        try:
            plans[name] = preview(mover(args, fleet, name), name, action, args.version)
        except NothingToDoError as exc:
            idle.append(exc)
    if idle and (args.servable or not plans):
        raise RolloutError("; ".join(map(str, idle)))
    for reason in idle:
        progress(f"skipped {reason}")
    return plans


def _share(args: argparse.Namespace, fleet: Fleet, name: str, action: str) -> None:
    path = fleet.config_file.path
    if action == "canary":
        write_split(path, name, getattr(args, "percent", 5.0))
    elif action != "finish" and name in read_split(path):
        write_split(path, name, 0)


def _print_plans(args: argparse.Namespace, plans: dict[str, list[Step]]) -> None:
    if args.json:
        write_json({name: [str(step) for step in steps] for name, steps in plans.items()})
        return
    for name, steps in plans.items():
        for number, step in enumerate(steps, 1):
            write(f"{number}. {step}")
        if not steps:
            write(f"{name}: nothing to do: everything is as asked already")


def _print_outcomes(args: argparse.Namespace, outcomes: list[Outcome]) -> None:
    if args.json:
        document = [
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
        write_json(document)
        return
    for outcome in outcomes:
        labels = ", ".join(
            f"{label} {version}" for label, version in _labels(outcome).items() if version
        )
        count = len(outcome.steps)
        steps = f"{count} step{'s' if count > 1 else ''}" if count else "nothing changed"
        write(f"{outcome.name}: {labels} ({steps}, {outcome.seconds:.1f} s)")
        for address, reason in outcome.unreachable.items():
            write(f"{outcome.name}: skipped {address}: {reason}")


def _labels(outcome: Outcome) -> dict[str, int | None]:
    return {label: outcome.state.label(label) for label in (STABLE, CANARY, PREVIOUS)}


def rollout_status(args: argparse.Namespace) -> int:
    """Run `shortlist rollout status`; 1 if servers and file disagree."""
    with opened_fleet(args) as fleet:
        names: list[str] = []
        if not args.servable:
            names += fleet.unlisted(fleet.known_models())
        if not names or fleet.config_file.read().model_config_list.config:
            names = [*servables(args, fleet), *names]
        observations = {name: fleet_for(args, fleet, name).observe(name) for name in names}
    split = read_split(config_path(args))
    problems = {name: seen.problems() for name, seen in observations.items()}
    if args.json:
        document = {
            name: {**_as_json(seen), "split": split.get(name), "problems": problems[name]}
            for name, seen in observations.items()
        }
        write_json(document)
    else:
        for name, seen in observations.items():
            _print_status(name, seen, split.get(name))
            for problem in problems[name]:
                write(printable(f"  ! {problem}"))
    return 1 if any(problems.values()) else 0


def _print_status(name: str, seen: Observation, split: dict[str, float] | None) -> None:
    recorded = seen.state.recorded
    configured = "not listed" if recorded is None else "the newest"
    if recorded is not None and recorded.versions is not None:
        configured = _join(recorded.versions)
    write(name)
    write(f"  published  {_join(seen.state.published)}")
    write(f"  file       {configured}")
    for server in seen.state.servers:
        labels = " ".join(f"{label}={version}" for label, version in sorted(server.labels.items()))
        available = _join(sorted(server.available))
        write(printable(f"  {server.address}  AVAILABLE {available}  {labels}"))
    if split is not None:
        shares = " ".join(f"{label}={part:.2%}" for label, part in split.items())
        write(printable(f"  split      {shares}"))


def _as_json(seen: Observation) -> dict[str, Any]:
    recorded = seen.state.recorded
    return {
        "published": list(seen.state.published),
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
            for server in seen.state.servers
        ],
        "unreachable": dict(seen.unreachable),
    }


def rollout_log(args: argparse.Namespace) -> int:
    """Run `shortlist rollout log`."""
    for rollout in History(args.repository / HISTORY_FILE).rollouts()[-args.last :]:
        if args.json:
            for record in rollout.records:
                write_json(record, indent=None)
        else:
            write(_log_line(rollout))
    return 0


def _log_line(rollout: RecordedRollout) -> str:
    first = rollout.records[0]
    why = f" ({first['why']})" if first.get("why") else ""
    head = f"{first.get('when')}  {first.get('who')}  {first.get('servable')}"
    return printable(f"{head}  {rollout.action}{why}  {rollout.outcome}")


def rollout_lint(args: argparse.Namespace) -> int:
    """Run `shortlist rollout lint`; 1 if there is an error."""
    path = config_path(args).resolve()
    # `shortlist serve` and `stack` keep their files there and always set the flag.
    ours = path.is_relative_to((args.repository / CONFIG_FILE).parent.resolve())
    findings = lint_config(
        ConfigFile(config_path(args)).read(),
        repository=ModelRepository(args.repository),
        labels_flag=ours if args.labels_flag is None else args.labels_flag == "true",
    )
    if args.json:
        write_json(findings)
    else:
        for finding in findings:
            write(printable(str(finding)))
        if not findings:
            write(f"{config_path(args)}: no findings")
    return 1 if any(finding.severity is Severity.ERROR for finding in findings) else 0


def _join(values: Any) -> str:
    return ", ".join(str(value) for value in values) or "none"
