"""Rules for the whole tree: who imports what, and how large modules and folders may grow.

`make lint` holds the rest: import-linter the layers, ruff the order of `__all__`.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from shortlist.clients.cli.main import build_parser
from tests.support.paths import ROOT

PACKAGES = ("clients", "serving", "export")
MODULES = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
)
HEAVY = {
    "keras",
    "scann",
    "tensorflow",
    "tensorflow_recommenders",
    "tensorflow_serving",
    "tf_keras",
}
MAX_LINES = 500
MAX_MODULES = 15


def verbs() -> list[str]:
    parser = build_parser()
    (action,) = (action for action in parser._actions if action.dest == "verb")
    assert action.choices is not None
    return list(action.choices)


def heavy_modules_after(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter has loaded after running `code`."""
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


@cache
def parse(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def imports(module: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, wherever in its code."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_clients_and_serving_load_neither_tensorflow_nor_numpy() -> None:
    code = (
        "import shortlist, shortlist.clients, shortlist.serving, shortlist.serving.repository.local"
    )
    assert heavy_modules_after(code) == set()


def test_export_loads_no_tensorflow_until_it_works() -> None:
    code = "import shortlist.export.cli.commands, shortlist.export.data"
    assert not heavy_modules_after(code) & HEAVY


def test_help_of_no_verb_loads_tensorflow() -> None:
    code = "from shortlist.clients.cli.main import main\n" + "".join(
        f"assert main({[*arguments, '--help']!r}) == 0\n"
        f"assert not {HEAVY!r} & set(sys.modules), {arguments!r}\n"
        for arguments in ([], *([verb] for verb in verbs()))
    )
    assert not heavy_modules_after(code) & HEAVY


def test_readme_lists_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [verb for verb in verbs() if f"`shortlist {verb}" not in readme]


def undeclared_names(module: Path) -> list[str]:
    """Return what is wrong with the public names of a module."""
    tree = parse(module)
    declared = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    ]
    private = module.name.startswith("_")
    if not declared:
        public = any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            for node in tree.body
        )
        return [f"{module} has public names but no __all__"] if public and not private else []
    if not isinstance(declared[0], ast.List):
        return []  # a package that gathers its names from elsewhere
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
    return [f"{module} has no {name}" for name in sorted(set(names) - defined)]


def test_public_names_are_declared_and_exist() -> None:
    assert not [fault for module in MODULES for fault in undeclared_names(module)]


def test_private_modules_are_imported_in_their_own_package_only() -> None:
    offenders = []
    for module in MODULES:
        importer = ".".join(("shortlist", *module.with_suffix("").parts))
        for name in imports(module):
            parts = name.split(".")
            private = [place for place, part in enumerate(parts) if part.startswith("_")]
            if parts[0] != "shortlist" or not private or parts[private[0]] == "_tf":
                continue  # import-linter says who may import TensorFlow
            owner = ".".join(parts[: private[0]])
            if not importer.startswith(f"{owner}."):
                offenders.append(f"{importer} imports {name}")
    assert not offenders


def test_modules_are_short_enough_to_read_at_once() -> None:
    lines = {module: len((ROOT / module).read_text("utf-8").splitlines()) for module in MODULES}
    assert not {module: count for module, count in lines.items() if count > MAX_LINES}


def test_folders_hold_few_enough_modules_to_know_them() -> None:
    sizes = Counter(module.parent for module in MODULES if module.name != "__init__.py")
    assert not {folder: size for folder, size in sizes.items() if size > MAX_MODULES}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert not [module for module in MODULES if module.stem in {"utils", "helpers", "misc"}]
