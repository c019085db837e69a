"""The help of every verb and of every part of a verb."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shortlist.clients.cli.main import build_parser


def parsers(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                yield from parsers(part, (*path, name))


PARSERS = dict(parsers(build_parser()))
VERBS = {path: parser for path, parser in PARSERS.items() if "run" in parser._defaults}


@pytest.mark.parametrize("path", PARSERS, ids=" ".join)
def test_help_ends_with_an_example_that_parses(path: tuple[str, ...]) -> None:
    example = PARSERS[path].format_help().rstrip().splitlines()[-1].strip()
    assert shlex.split(example)[: len(path) + 1] == ["shortlist", *path]
    build_parser().parse_args(shlex.split(example)[1:])


@pytest.mark.parametrize("path", PARSERS, ids=" ".join)
def test_every_option_has_help(path: tuple[str, ...]) -> None:
    silent = [
        action.dest
        for action in PARSERS[path]._actions
        if action.option_strings and not action.help
    ]
    assert not silent


def test_every_verb_exists() -> None:
    """The functions are named as text, so that parsers can be built without their imports."""
    names = sorted({parser._defaults["run"].function for parser in VERBS.values()})
    code = (
        "import sys\nfrom importlib import import_module\n"
        "for name in sys.argv[1:]:\n"
        "    module, _, function = name.partition(':')\n"
        "    assert callable(getattr(import_module(module), function)), name\n"
    )
    subprocess.run([sys.executable, "-c", code, *names], check=True, timeout=120)


def test_parsers_load_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from shortlist.clients.cli.main import build_parser\n"
        "build_parser()\n"
        "heavy = {'grpc', 'numpy', 'pandas', 'requests', 'tensorflow', 'tqdm', 'urllib3'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
