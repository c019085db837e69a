"""Generates the messages' Python code from the `*.proto` files of this folder.

Usage, from the root of the project: `python -m shortlist.clients.wire.generate [--check]`.

The compiler is protoc 26.1, in an isolated environment of uv: since 26, generated code works with
protobuf 5 and later, and since 27, it refuses or warns at import if the runtime's major version
differs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["generate", "main", "outdated"]

COMPILER: Final = "grpcio-tools==1.64.3"  # bundles protoc 26.1
_HERE: Final = Path(__file__).resolve().parent
_SOURCES: Final = _HERE.parents[1] / "src"
_PACKAGE: Final = "shortlist/clients/wire"
_GENERATED: Final = ("*_pb2.py", "*_pb2.pyi", "messages.py")


def _uv() -> str:
    installed = Path(sys.executable).with_name("uv")
    path = str(installed) if installed.exists() else shutil.which("uv")
    if path is None:
        raise RuntimeError("uv is not installed; `pip install uv`, or run `make wire`")
    return path


def _compile(out: Path) -> None:
    protos = sorted(f"{_PACKAGE}/{path.name}" for path in _HERE.glob("*.proto"))
    command = [
        *("run", "--quiet", "--isolated", "--no-project", "--no-config"),
        *("--python", sys.executable, "--with", COMPILER, "--with", "setuptools<81"),
        *("python", "-W", "ignore", "-m", "grpc_tools.protoc", f"-I{_SOURCES}"),
        *(f"--python_out={out}", f"--pyi_out={out}", *protos),
    ]
    errors = []
    for mode in ((), ("--offline",)):  # offline: uv's cache may hold the compiler
        done = subprocess.run([_uv(), *mode, *command], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        errors.append(done.stderr.strip())
    raise RuntimeError(f"{COMPILER} failed:\n{errors[0]}")


def _top_level_names(pyi: str) -> list[str]:
    """Return the messages and enums of a `_pb2.pyi`, without the enums' values."""
    return sorted(re.findall(r"^class (\w+)\(", pyi, flags=re.MULTILINE))


def _messages_module(out: Path) -> str:
    """Return a module with every message, so that callers need not know the files."""
    lines = ['"""Every message and enum of this package; made by `generate`."""', ""]
    lines += ["# ruff: noqa: I001", ""]
    every: list[str] = []
    for path in sorted(out.glob("*_pb2.pyi")):
        names = _top_level_names(path.read_text(encoding="utf-8"))
        every += names
        lines.append(f"from shortlist.clients.wire.{path.stem} import (")
        lines += [f"    {name}," for name in names]
        lines.append(")")
    lines += ["", "__all__ = [", *(f'    "{name}",' for name in sorted(every)), "]", ""]
    return "\n".join(lines)


def generate(out: Path) -> None:
    """Write all generated files into the folder `out`.

    Raises:
        RuntimeError: The compiler is not available or refused a file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _compile(Path(scratch))
        package = Path(scratch, _PACKAGE)
        (package / "messages.py").write_text(_messages_module(package), encoding="utf-8")
        for path in package.glob("*_pb2.pyi"):
            # The compiler leaves a generic type bare, which mypy --strict refuses.
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("_Mapping]", "_Mapping[str, object]]"), encoding="utf-8")
        for pattern in _GENERATED:
            for path in package.glob(pattern):
                shutil.copyfile(path, out / path.name)


def outdated() -> list[str]:
    """Return the names of the checked-in files that differ from what `generate` writes."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        names = {
            path.name for where in (fresh, _HERE) for p in _GENERATED for path in where.glob(p)
        }
        return sorted(
            name
            for name in names
            if not (fresh / name).exists()
            or not (_HERE / name).exists()
            or (fresh / name).read_bytes() != (_HERE / name).read_bytes()
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; exit status 1 if `--check` finds outdated files."""
    parser = argparse.ArgumentParser(
        prog="python -m shortlist.clients.wire.generate", description=__doc__
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if files are outdated"
    )
    args = parser.parse_args(argv)
    try:
        if not args.check:
            generate(_HERE)
            return 0
        old = outdated()
    except RuntimeError as exc:
        sys.stderr.write(f"generate: error: {exc}\n")
        return 1
    if old:
        sys.stderr.write(f"generate: not current: {', '.join(old)}; run `make wire`\n")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
