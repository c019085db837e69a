"""Missing and unfitting packages are reported with the command that installs them."""

import tomllib
from pathlib import Path

import pytest

from shortlist.serving import installed
from shortlist.serving.installed import missing_package, scann_problem, tensorflow_version
from tests.support.packages import versions

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name in packages else name)


def test_nothing_is_missing_here() -> None:
    assert missing_package(["tensorflow", "tf_keras", "numpy"], extra="export") is None
    assert scann_problem() is None


def test_missing_tensorflow_names_both_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorflow", "tf_keras")
    assert missing_package(["numpy", "tensorflow", "tf_keras"], extra="export") == (
        "tensorflow is not installed; run: pip install 'shortlist[tensorflow]' "
        "(or 'shortlist[tensorflow-cpu]', without GPU)"
    )


def test_other_missing_packages_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "orjson")
    missing = missing_package(["numpy", "orjson"], extra="embedded")
    assert missing == "orjson is not installed; run: pip install 'shortlist[embedded]'"


@pytest.mark.parametrize("package", ["tf_keras", "tensorflow_recommenders"])
def test_packages_that_require_tensorflow_by_name_spare_tensorflow_cpu(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing them as usual would install `tensorflow` over tensorflow-cpu."""
    without(monkeypatch, package)
    monkeypatch.setattr(installed, "version", versions(tensorflow_cpu="2.21.3"))
    missing = missing_package([package], extra="export")
    assert missing is not None
    command = "pip install --no-deps 'tf-keras==2.21.*' tensorflow-recommenders==0.7.7"
    assert missing.endswith(command)
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    pin = command.split()[-1]
    assert any(requirement.startswith(pin) for requirement in extras["tensorflow"])


@pytest.mark.parametrize(
    ("packages", "problem"),
    [
        ({}, "scann is not installed; run: pip install 'shortlist[scann]'"),
        ({"tensorflow": "2.21.0"}, "scann is not installed"),
        ({"scann": "1.4.2", "tensorflow": "2.20.1"}, None),
        ({"scann": "1.4.2", "tensorflow_cpu": "2.20.0"}, None),
        (
            {"scann": "1.4.2", "tensorflow_cpu": "2.21.0"},
            (
                "scann 1.4.2 does not load into TensorFlow 2.21.0; run: "
                "pip install 'shortlist[tensorflow-cpu,scann]'"
            ),
        ),
    ],
)
def test_scann_must_be_installed_and_fit(
    packages: dict[str, str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "version", versions(**packages))
    assert (scann_problem() or "").startswith(problem or "")
    assert (scann_problem() is None) is (problem is None)


def test_version_of_tensorflow_under_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", versions())
    assert tensorflow_version() is None
    monkeypatch.setattr(installed, "version", versions(tensorflow_cpu="2.21.0"))
    assert tensorflow_version() == "2.21.0"
