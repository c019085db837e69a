"""What `shortlist publish` says about paths that are no SavedModel."""

import os
from pathlib import Path

import pytest

from shortlist.export.gates.source import check_saved_model
from shortlist.serving.errors import RepositoryError


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ([], "m", "{root}/m does not exist; pass the folder of a SavedModel"),
        (["m/x"], "m", "no saved_model.pb in {root}/m; pass the folder of a SavedModel"),
        (
            ["m.keras"],
            "m.keras",
            "is a Keras file, not a SavedModel; load it and save a SavedModel",
        ),
        (["m.h5"], "m.h5", "is a Keras file"),
        (["m.csv"], "m.csv", "{root}/m.csv is a file; pass the folder of a SavedModel"),
        (["m/saved_model.pb"], "m/saved_model.pb", "is a file; pass its folder, {root}/m"),
        (
            ["m/saved_model.pb", "m/assets/x"],
            "m/assets",
            "is a part of a SavedModel; pass {root}/m",
        ),
        (["m/checkpoint"], "m", "holds a checkpoint, which has weights only"),
        (["m/ckpt-1.index"], "m", "holds a checkpoint"),
        (["m/saved_model.pbtxt"], "m", "holds a SavedModel as text, not saved_model.pb"),
        (
            ["models/m/1/saved_model.pb", "models/m/2/saved_model.pb"],
            "models",
            "pass the folder of one SavedModel: {root}/models/m/1, {root}/models/m/2",
        ),
    ],
)
def test_other_paths_are_refused_with_the_remedy(
    tmp_path: Path, files: list[str], path: str, message: str
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(RepositoryError) as error:
        check_saved_model(tmp_path / path)
    assert message.format(root=tmp_path) in str(error.value)


def test_a_saved_model_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    check_saved_model(tmp_path)


def test_links_that_lead_out_of_a_saved_model_are_refused(tmp_path: Path) -> None:
    """Publishing would copy what they lead to, such as a key of the publisher, for all to read."""
    model, secret = tmp_path / "m", tmp_path / "secret"
    (model / "assets").mkdir(parents=True)
    (model / "saved_model.pb").touch()
    (model / "assets" / "own").touch()
    (model / "inner").symlink_to("assets/own")
    check_saved_model(model)
    secret.touch()
    (model / "assets" / "vocabulary").symlink_to(secret)
    with pytest.raises(RepositoryError, match=f"vocabulary links to {secret}, outside .*cp -rL"):
        check_saved_model(model)
    (model / "assets" / "vocabulary").unlink()
    os.mkfifo(model / "assets" / "pipe")
    with pytest.raises(RepositoryError, match="pipe is neither a file nor a folder"):
        check_saved_model(model)
