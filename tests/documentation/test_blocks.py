"""Every code block of the documentation is one: commands parse, Python compiles and imports."""

import ast
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from shortlist.clients.cli.main import build_parser
from tests.support.pages import PAGES, Block, blocks, commands
from tests.support.paths import ROOT

# Not of this project, and not all installed where the tests run.
ELSEWHERE = {"torch"}
PARSER = build_parser()
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def cases(*languages: str) -> list[object]:
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}:{block.line}")
        for page in PAGES
        for block in blocks(page, *languages)
    ]


@pytest.mark.parametrize("block", cases("bash", "console"))
def test_commands_parse(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub(r'"\$\w+"', "1", block.text)
    if block.language == "bash":
        text = re.sub(r"^(?=shortlist )", "$ ", text, flags=re.MULTILINE)
    for command in commands(text):
        program, *words = command.words
        if Path(program).name == "shortlist":
            try:
                PARSER.parse_args(words)
            except SystemExit as exc:  # also after --help and the like
                if exc.code:
                    pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")
        if program == "make":
            assert {word for word in words if re.fullmatch("[a-z-]+", word)} <= set(TARGETS)


@pytest.mark.parametrize("block", cases("", "console"))
def test_commands_have_a_prompt(block: Block) -> None:
    """What has none is not checked, and the site's copy button does not know it from output."""
    assert block.language or not re.search(r"^(\$ )?(shortlist|make|curl|pip) ", block.text, re.M)
    assert not re.search(r"^(shortlist|make|curl|pip) [a-z]+ --", block.text, re.MULTILINE)


@pytest.mark.parametrize("block", cases("python"))
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            assert top in ELSEWHERE or importlib.util.find_spec(top), name
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("shortlist"):
            module = importlib.import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_parse(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block.text)
    for block in blocks(page, "toml"):
        tomllib.loads(block.text)
    for block in blocks(page, "yaml"):
        yaml.safe_load(block.text)
