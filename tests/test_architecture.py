"""Rules that hold for the whole tree: what imports what, and what every module declares."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist.clients.cli.main import build_parser
from tests.support.paths import ROOT

PACKAGES = ("clients", "serving", "export")
MODULES = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
)
HEAVY = (
    "tensorflow",
    "tensorflow_serving",
    "tensorflow_recommenders",
    "keras",
    "tf_keras",
    "scann",
)
MAX_LINES = 400


def verbs() -> list[str]:
    parser = build_parser()
    (action,) = (action for action in parser._actions if action.dest == "verb")
    assert action.choices is not None
    return list(action.choices)


def heavy_modules_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running `code`."""
    program = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split()) & {*HEAVY, "numpy", "pandas"}


def test_clients_and_serving_load_neither_tensorflow_nor_numpy() -> None:
    assert (
        heavy_modules_after("import shortlist.clients, shortlist.serving.repository.local") == set()
    )


def test_export_loads_no_tensorflow_until_it_works() -> None:
    code = "import shortlist.export.cli.commands, shortlist.export.data"
    assert not heavy_modules_after(code) & set(HEAVY)


@pytest.mark.parametrize("verb", ["", *verbs()])
def test_help_answers_without_tensorflow(verb: str) -> None:
    arguments = [verb, "--help"] if verb else ["--help"]
    code = f"from shortlist.clients.cli.main import main\nassert main({arguments!r}) == 0"
    assert not heavy_modules_after(code) & set(HEAVY)


@pytest.mark.parametrize("verb", verbs())
def test_help_ends_with_an_example_that_parses(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([verb, "--help"])
    last = capsys.readouterr().out.rstrip().splitlines()[-1].strip().removeprefix("$ ")
    assert last.startswith(f"shortlist {verb} "), last
    args = build_parser().parse_args(last.split()[1:])
    assert args.verb == verb


@pytest.mark.parametrize("verb", verbs())
def test_readme_lists_the_command(verb: str) -> None:
    assert f"`shortlist {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_public_names_are_declared_and_exist(module: Path) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    declared = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    ]
    private = module.name.startswith("_")
    if not declared:
        assert private or not any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            for node in tree.body
        ), f"{module} has public names but no __all__"
        return
    if not isinstance(declared[0], ast.List):
        return  # a package that gathers its names from elsewhere
    names = ast.literal_eval(declared[0])
    defined: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                defined.update(alias.asname or alias.name.split(".")[0] for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store()):
                defined.add(name)
            case ast.Constant(value=str(name)):  # lazily loaded names are listed as strings
                defined.add(name)
    assert not set(names) - defined


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_is_longer_than_can_be_read_at_once(module: Path) -> None:
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert not [module for module in MODULES if module.stem in {"utils", "helpers", "misc"}]
