"""`shortlist doctor`."""

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path

from shortlist.clients.cli.output import write, write_json, write_table
from shortlist.serving.doctor import machine, software
from shortlist.serving.doctor.check import Check, Outcome
from shortlist.serving.doctor.ports import check_ports
from shortlist.serving.doctor.repository import check_repository

__all__ = ["doctor"]

_DEFAULT = Path("models")


def doctor(args: argparse.Namespace) -> int:
    """Check this machine; 1 if a command will fail on it."""
    checks = list(_checks(args.repository, load=not args.quick))
    problems = [check for check in checks if check.outcome is Outcome.PROBLEM]
    if args.json:
        write_json({"platform": platform.platform(), "checks": checks})
        return 1 if problems else 0
    rows = [["check", "outcome", "found"]]
    rows += [[check.name, check.outcome, _without_home(check.found)] for check in checks]
    write_table(rows, text=(0, 1, 2))
    remedies = [check for check in checks if check.remedy is not None]
    if remedies:
        write("")
    for check in remedies:
        write(f"{check.outcome}: {check.name}: {_without_home(check.remedy or '')}")
    return 1 if problems else 0


def _checks(repository: Path | None, *, load: bool) -> Iterator[Check]:
    yield software.check_python()
    yield software.check_packages()
    yield software.check_tensorflow(load=load)
    yield software.check_scann()
    yield machine.check_processor()
    yield machine.check_memory()
    yield machine.check_disk(repository or _DEFAULT)
    yield machine.check_descriptors()
    yield machine.check_clock()
    yield software.check_docker()
    yield from check_ports()
    yield from check_repository(repository or _DEFAULT, named=repository is not None)


def _without_home(text: str) -> str:
    """Return a text for a bug report, in which the home folder is `~`."""
    home = str(Path.home())
    return text.replace(home, "~") if home != "/" else text
