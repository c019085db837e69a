"""Checks of the machine: processor, memory, disk, descriptors, clock. Linux only."""

import os
import platform
import resource
import shutil
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from shortlist.serving.doctor.check import Check, ok, problem, warning

__all__ = ["check_clock", "check_descriptors", "check_disk", "check_memory", "check_processor"]

GIB: Final = 2**30
_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_INSTRUCTIONS: Final = {
    "AVX": ("avx",),
    "AVX2": ("avx2",),
    "FMA": ("fma",),
    "AVX-512": ("avx512f",),
    "AVX-512 BF16": ("avx512_bf16",),
    "AMX": ("amx_tile",),
    "AMX BF16": ("amx_bf16",),
}
_MEMORY: Final = 4 * GIB  # what the demo needs, with room for a server
_DISK: Final = 5 * GIB  # TensorFlow's packages, and some versions
_DESCRIPTORS: Final = 1024


def check_processor(proc: Path = _PROC) -> Check:
    """Name the processor and its vector instructions; without AVX, TensorFlow does not load."""
    name = "processor"
    cores = len(os.sched_getaffinity(0))
    text = f"{platform.machine()}, {cores} of {os.cpu_count()} cores usable"
    facts = _cpuinfo(proc / "cpuinfo")
    if "flags" not in facts:
        return ok(name, f"{text}, instructions unknown")
    flags = set(facts["flags"].split())
    has = [label for label, needs in _INSTRUCTIONS.items() if flags.issuperset(needs)]
    text = f"{facts.get('model name', 'unknown model')}, {text}, {', '.join(has) or 'no AVX'}"
    if "AVX" not in has:
        return problem(
            name, text, "TensorFlow's packages need AVX; use another machine or virtual processor"
        )
    if "AVX2" not in has or "FMA" not in has:
        return warning(
            name, text, "ScaNN needs AVX2 and FMA; use the index ivf, or another processor"
        )
    return ok(name, text)


def _cpuinfo(path: Path) -> dict[str, str]:
    """Return the facts about the first processor; empty if there are none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def check_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Check:
    """Name the available memory, also of the control group, which a container has."""
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError as exc:
        return ok("memory", f"unknown: {exc.strerror}")
    facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    total, free = facts["MemTotal"], facts.get("MemAvailable", facts["MemFree"])
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB available"
    limit = _limit(cgroups)
    if limit is not None and limit < total:
        used = _number(cgroups, ("memory.current", "memory/memory.usage_in_bytes")) or 0
        free = min(free, limit - used)
        text += f", control group {(limit - used) / GIB:.1f} of {limit / GIB:.1f} GiB"
    if free < _MEMORY:
        return warning(
            "memory", text, f"a training may need {_MEMORY // GIB} GiB; end other programs"
        )
    return ok("memory", text)


def _limit(cgroups: Path) -> int | None:
    return _number(cgroups, ("memory.max", "memory/memory.limit_in_bytes"))  # versions 2 and 1


def _number(folder: Path, names: tuple[str, ...]) -> int | None:
    for name in names:
        try:
            text = (folder / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # not "max"
            return int(text)
    return None


def check_disk(folder: Path) -> Check:
    """Name the room on the disk of a folder, which may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free for the repository"
    if not os.access(folder, os.W_OK):
        return problem("disk", f"{text}, but its folder is not writable", "change its permissions")
    if usage.free < _DISK:
        remedy = "`shortlist prune` deletes old versions; or name another --repository"
        return warning("disk", text, remedy)
    return ok("disk", text)


def check_descriptors() -> Check:
    """Name the limit of open files, which is also that of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = ["unlimited" if n == resource.RLIM_INFINITY else f"{n:,}" for n in (soft, hard)]
    text = f"{shown[0]} open files, at most {shown[1]}"
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        return warning(
            "descriptors", text, f"raise it for many clients: ulimit -n {_DESCRIPTORS} or more"
        )
    return ok("descriptors", text)


def check_clock(now: datetime | None = None) -> Check:
    """Compare the clock with the time of the installation."""
    now = now or datetime.now(UTC)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    record = Path(str(distribution("shortlist").locate_file("")))
    installed = datetime.fromtimestamp(record.stat().st_mtime, UTC)
    if now < installed:
        return problem(
            "clock",
            f"{text} is before the installation of Shortlist at {installed:%Y-%m-%d %H:%M:%S}",
            "set the clock; certificates and the ages of versions depend on it",
        )
    return ok("clock", text)
