#!/usr/bin/env python3
"""Check that every container image is used with the tag and digest of docker/images.lock.

Our own images have the version of this project as tag.

    docker/images.py             name every use that differs; exit status 1 if there is one
    docker/images.py --write     change them
    docker/images.py --digests   ask the registries for the digests first (docker buildx or skopeo)
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = "docker/images.lock"
OWN = ("shortlist/export", "shortlist/server")
USES = (
    "docker/Dockerfile",
    "docker/compose.yaml",
    "docker/kubernetes/**/*.yaml",
    "docs/production.md",
    "serving/servers/options.py",
    "tests/containers/images.sh",
    "tests/containers/standins/*",
)
# `image: x`, `ARG X_IMAGE=x` and `${X_IMAGE:-x}`, to find images that the lock does not know.
NAMED = re.compile(r"(?:^\s*(?:- )?image: |_IMAGE=|_IMAGE:-)([a-z][\w./-]*)", re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """Tag and digest of an image; no digest if it was never looked up."""

    tag: str
    digest: str | None = None

    def __str__(self) -> str:
        return self.tag if self.digest is None else f"{self.tag}@{self.digest}"


def read_pins(root: Path) -> dict[str, Pin]:
    """Return the images of the lock and our own, by name."""
    pins = {}
    for line in (root / LOCK).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, tag, digest = line.split()
            pins[name] = Pin(tag, None if digest == "-" else digest)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return pins | dict.fromkeys(OWN, Pin(project["version"]))


def pinned(text: str, pins: Mapping[str, Pin]) -> str:
    """Return the text of a file with every image as in the lock."""
    for name, pin in pins.items():
        text = re.sub(
            rf"((?<=:-)|(?<![\w./-])){name}(:\w[\w.-]*(@sha256:\w+)?|@sha256:\w+|(?=}}))",
            f"{name}:{pin}",
            text,
        )
        # Kustomize sets the tag apart from the name, quoted, since YAML reads 1.10 as a number.
        digest = "" if pin.digest is None else rf"\n\g<indent>digest: {pin.digest}"
        text = re.sub(
            rf"(?P<head>[nN]ame: {name}\n(?P<indent> +))newTag: [^\s#]+(\n +digest: sha256:\w+)?",
            rf'\g<head>newTag: "{pin.tag}"{digest}',
            text,
        )
    return text


def differences(root: Path, *, write: bool = False) -> list[str]:
    """Return what is not as in the lock, after changing it if asked."""
    pins = read_pins(root)
    found = []
    for path in sorted(path for pattern in USES for path in root.glob(pattern)):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root)
        right = pinned(text, pins)
        if write and right != text:
            path.write_text(right, encoding="utf-8")
        elif right != text:
            old = zip(text.splitlines(), right.splitlines(), strict=False)
            line, wrong, wanted = next(
                (number, a, b) for number, (a, b) in enumerate(old, 1) if a != b
            )
            found.append(f"{name}:{line}: {wrong.strip()!r} must be {wanted.strip()!r}")
        images = set(NAMED.findall(text)) if path.is_relative_to(root / "docker") else set()
        found += [f"{name}: the image {image!r} is not in {LOCK}" for image in images - pins.keys()]
    return found


def look_up(image: str) -> str:
    """Return the digest of a tag, from its registry."""
    for command in (
        ["docker", "buildx", "imagetools", "inspect", image, "--format={{.Manifest.Digest}}"],
        ["skopeo", "inspect", "--format={{.Digest}}", f"docker://{image}"],
    ):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if re.fullmatch(r"sha256:[0-9a-f]{64}", digest := done.stdout.strip()):
                return digest
    raise SystemExit(f"images: no digest for {image}; needs docker buildx or skopeo, and a network")


def write_digests(root: Path) -> None:
    """Look up every digest of the lock and write them there."""
    lines = []
    for line in (root / LOCK).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, tag, _ = line.split()
            line = f"{name} {tag} {look_up(f'{name}:{tag}')}"
        lines.append(line)
    (root / LOCK).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="change what differs")
    parser.add_argument("--digests", action="store_true", help="look up digests first")
    args = parser.parse_args()
    if args.digests:
        write_digests(ROOT)
    found = differences(ROOT, write=args.write or args.digests)
    sys.stderr.writelines(f"images: {line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
