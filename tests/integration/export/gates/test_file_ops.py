"""A SavedModel that reads and writes files: refused by `publish`, `verify` and the server."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients.cli.main import main
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.repository.version import Verdict, read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def thief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers with the file of that name, and leaves a file when it is run."""
    from shortlist.export._tf import tf

    root = tmp_path_factory.mktemp("thief")

    class Thief(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.salt = tf.Variable("")

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="x")])
        def serve(self, x: Any) -> Any:
            with tf.control_dependencies([tf.io.write_file(str(root / "trace"), "was here")]):
                return {"y": tf.map_fn(tf.io.read_file, x) + self.salt}

    model = Thief()
    tf.saved_model.save(model, str(root / "saved"), signatures=model.serve)
    return root / "saved"


def load(path: Path, *, allow: bool) -> Any:
    from shortlist.serving.embedded.runtime.servable import RuntimeOptions, load_servable

    options = RuntimeOptions(allow_file_ops=allow)
    return load_servable("thief", 1, str(path), tags=["serve"], options=options)


def test_refused_wherever_it_could_run(
    thief: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    publish = ["publish", str(thief), "--name", "thief", "--repository", str(models)]
    assert main(publish) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        "thief failed the gate 'ops': signature 'serving_default' runs the op 'ReadFile'" in error
    )
    assert "(1 more such uses)" in error
    assert "--allow ops" in error
    # Nothing of it ran on the publisher's machine, and nothing was published.
    assert not (thief.parent / "trace").exists()
    assert list((models / "thief").glob("[0-9]*")) == []

    shutil.copytree(thief, models / "thief" / "7")
    assert main(["verify", str(models / "thief" / "7")]) == 1
    assert "the gate 'ops'" in capsys.readouterr().err
    with pytest.raises(StatusError, match="--allow_file_ops=true") as caught:
        load(models / "thief" / "7", allow=False)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "'ReadFile' (node " in caught.value.message
    assert not (thief.parent / "trace").exists()


def test_refused_as_a_tower_before_it_runs(
    thief: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "candidates.csv").write_text("candidate_id,embedding\na,1 0\nb,0 1\n")
    command = ["index", f"--query-tower={thief}", f"--candidates={tmp_path / 'candidates.csv'}"]
    assert main([*command, "--repository", str(tmp_path / "models")]) == 1
    assert f"{thief}: signature 'serving_default' runs the op 'ReadFile'" in capsys.readouterr().err
    assert not (thief.parent / "trace").exists()


def test_served_if_both_say_that_they_trust_it(thief: Path, tmp_path: Path) -> None:
    queries, secret = tmp_path / "queries.jsonl", tmp_path / "secret"
    secret.write_text("42")
    queries.write_text(f'{{"x": ["{secret}"]}}')
    publish = ["publish", str(thief), "--name", "thief", "--repository", str(tmp_path / "models")]
    assert main([*publish, "--queries", str(queries), "--allow", "ops"]) == 0
    path = tmp_path / "models" / "thief" / "1"
    manifest = read_manifest(path)
    assert manifest is not None
    verdicts = {gate.gate: gate.verdict for gate in manifest.gates}
    assert (verdicts["ops"], verdicts["server"]) == (Verdict.ALLOWED, Verdict.PASSED)
    servable = load(path, allow=True)
    answer = servable.run("serving_default", {"x": np.array([str(secret)], object)}, ["y"])
    assert answer["y"].tolist() == [b"42"]
    servable.close()
