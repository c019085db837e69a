"""What is known before the training is refused before it, and before TensorFlow is imported."""

import logging
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest

from shortlist.clients.cli.main import main
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.preflight import check_data
from shortlist.serving import installed
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.files import file_lock
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.servers import compose
from tests.support.command import environment
from tests.support.packages import versions


class Usage(NamedTuple):
    """Answer of `shutil.disk_usage`."""

    total: int
    used: int
    free: int


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with neither a model server nor Docker on PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    compose.compose_command.cache_clear()
    Path("file").touch()
    Path("taken/.publish.lock").mkdir(parents=True)
    Path("odd/retrieval_ivf").mkdir(parents=True)
    Path("odd/retrieval_ivf/.last_version").write_text("seven\n")
    Path("no_times.csv").write_text("user_id,candidate_id\n1,a\n1,b\n2,a\n2,b\n")
    Path("candidates.csv").write_text("candidate_id,a=b\na,1\nb,2\n")
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(bytes(1000))
    # To import it is an error, because it imports TensorFlow and trains.
    monkeypatch.setitem(sys.modules, "shortlist.export.pipeline", None)
    return tmp_path


SAMPLE = "--data sample --sample-users 20 --sample-candidates 200 --sample-interactions 500"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"demo {SAMPLE} --server binary", "there is no tensorflow_model_server on PATH; install"),
        (f"demo {SAMPLE} --server docker", "there is no docker on PATH; install Docker"),
        (f"demo {SAMPLE} --repository file/m", "model repository file/m: Not a directory; choose"),
        ("demo --data nowhere.csv", "no such file: nowhere.csv"),
        (
            f"export {SAMPLE} --gate-server binary",
            "no tensorflow_model_server .* --gate-server docker",
        ),
        (f"export {SAMPLE} --gate-server docker", "there is no docker on PATH"),
        (f"export {SAMPLE} --repository file", "cannot write to the model repository file: Not a"),
        (f"export {SAMPLE} --repository taken", "to the model repository taken: Is a directory"),
        (f"export {SAMPLE} --repository odd", "holds 'seven' instead of a version number; delete"),
        (f"export {SAMPLE} --model a/b", "'a/b' is not a valid model name; use"),
        (f"export {SAMPLE} --target stock-2.20", "retrieval_scann needs the op 'Scann>"),
        (f"export {SAMPLE} --tensorboard file/x", "file/x: Not a directory; .* --tensorboard"),
        (f"export {SAMPLE} --checkpoints file/x", "file/x: Not a directory; .* with --checkpoints"),
        (f"export {SAMPLE} --embedding-dim 9999999", r"MB free, and the servables need about \d"),
        ("export --data no_times.csv --split leave_last_out", "no_times.csv has no timestamps"),
        ("export --data no_times.csv --split global_time", "no_times.csv has no timestamps"),
        ("export --data no_times.csv --rating-weight 1", "no_times.csv has no ratings"),
        (
            "export --data no_times.csv --candidates candidates.csv",
            "attribute name 'a=b' must not be empty or contain '='",
        ),
        ("publish saved --name m --gate-server binary", "no tensorflow_model_server on PATH"),
        (
            "publish saved --name m --repository memory://models --gate-server docker",
            "there is no docker on PATH; install Docker, or use --gate-server embedded",
        ),
        ("publish saved --name m --repository file", "to the model repository file: Not a direc"),
        ("publish saved --name a/b", "'a/b' is not a valid model name"),
    ],
)
def test_refused_before_training_without_a_trace(
    command: str,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**8, 9 * 10**8))
    before = sorted(folder.rglob("*"))
    assert main(command.split()) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(f"shortlist: error: .*{message}.*", error)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("package", "flags", "extra"),
    [("scipy", [], "export"), ("threadpoolctl", ["--baselines"], "baselines")],
)
def test_missing_package_is_refused(
    package: str,
    flags: list[str],
    extra: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name == package else name)
    assert main(["export", *SAMPLE.split(), *flags]) == 1
    error = f"{package} is not installed; run: pip install 'shortlist[{extra}]'"
    assert error in capsys.readouterr().err


@pytest.fixture
def without_scann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", versions(tensorflow="2.20.0"))


def test_scann_is_left_out_with_a_line_if_it_is_not_installed(
    folder: Path, without_scann: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *SAMPLE.split(), "--print-config"]) == 0
    assert 'indexes = ["brute_force", "ivf"]' in capsys.readouterr().out
    line = "the index scann is left out: scann is not installed; run: pip install 'shortlist[scann]"
    for options, said in (([], True), (["--index", "ivf", "--index", "brute_force"], False)):
        with pytest.raises(ModuleNotFoundError):  # the pipeline
            main(["export", *SAMPLE.split(), *options])
        assert (line in capsys.readouterr().err) is said


@pytest.mark.parametrize("command", [f"export {SAMPLE}", "bench index", "bench export"])
def test_scann_that_is_not_installed_is_refused(
    command: str, folder: Path, without_scann: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--index", "scann"]) == 1
    error = "scann is not installed; run: pip install 'shortlist[scann]'; or choose other indexes"
    assert error in capsys.readouterr().err


def test_a_stock_server_older_than_tensorflow_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installed, "version", versions(tensorflow="2.21.0"))
    command = f"export {SAMPLE} --index ivf --target stock-2.20"
    assert main(command.split()) == 1
    assert "TensorFlow 2.21.0 writes graphs that stock-2.20" in capsys.readouterr().err


def test_failing_gate_server_is_not_refused_if_its_gate_is_allowed_to_fail(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"shortlist\.export\.pipeline"):
        main(["export", *SAMPLE.split(), "--gate-server", "binary", "--allow", "server"])
    assert capsys.readouterr().err.startswith("data ")


def test_another_publisher_is_only_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with file_lock(tmp_path / ".publish.lock", timeout=0):
        ModelRepository(tmp_path).check_publishable(["retrieval_ivf"])
    assert caplog.messages == [
        f"another publisher is at work in {tmp_path}; this one will wait for it"
    ]


@pytest.mark.parametrize(
    ("free_mb", "refused", "warned"), [(0.1, True, False), (1.0, False, True), (9.0, False, False)]
)
def test_disk_space_is_refused_if_clearly_too_small_and_warned_of_if_small(
    free_mb: float,
    refused: bool,
    warned: bool,
    small_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    usage = Usage(10**9, 0, int(free_mb * 1e6))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = r" has 0 MB free, and the servables need about 1 MB; free some"
    with pytest.raises(RepositoryError, match=message) if refused else nullcontext():
        check_data(small_dataset, ExportConfig(), tmp_path / "models")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned


@pytest.mark.parametrize(
    "usage", [Usage(0, 0, 0), Usage(10**9, 10**9, 0), Usage(100, 0, 200), Usage(10**9, 0, -1), None]
)
def test_disk_space_that_cannot_be_true_refuses_nothing(
    usage: Usage | None, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems over a network or in user space report such."""

    def disk_usage(path: Path) -> Usage:
        if usage is None:
            raise OSError(38, "Function not implemented")
        return usage

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    check_data(small_dataset, ExportConfig(), tmp_path)


def test_refusals_do_not_import_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    script = f"""
import sys
from shortlist.clients.cli.main import main
for verb in ("export {SAMPLE}", "demo {SAMPLE}"):
    assert main([*verb.split(), "--repository", "file"]) == 1
assert main(["publish", "saved", "--name", "m", "--repository", "file"]) == 1
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
