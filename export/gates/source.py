"""Whether a path is a SavedModel, and what to do if it is something else."""

import os
from pathlib import Path

from shortlist.serving.errors import RepositoryError

__all__ = ["check_saved_model"]

_FILE = "saved_model.pb"
_SAVE = "save a SavedModel: tf.saved_model.save(model, FOLDER), or model.export(FOLDER) in Keras 3"
_MOST_NAMED = 3


def check_saved_model(path: Path) -> None:
    """Check that a folder holds a SavedModel.

    Raises:
        RepositoryError: It does not; the message says what it is instead.
    """
    if (path / _FILE).is_file():
        _check_files(path)
        return
    if not path.exists():
        raise RepositoryError(f"{path} does not exist; pass the folder of a SavedModel")
    if path.is_file():
        raise RepositoryError(_of_file(path))
    inner = sorted(file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{_FILE}"))
    if inner:
        names = ", ".join(map(str, inner[:_MOST_NAMED]))
        more = ", ..." if len(inner) > _MOST_NAMED else ""
        raise RepositoryError(
            f"no {_FILE} in {path}; pass the folder of one SavedModel: {names}{more}"
        )
    if path.name in ("variables", "assets") and (path.parent / _FILE).is_file():
        raise RepositoryError(f"{path} is a part of a SavedModel; pass {path.parent}")
    if (path / "checkpoint").is_file() or any(path.glob("*.index")):
        raise RepositoryError(
            f"{path} holds a checkpoint, which has weights only; load it into the model and {_SAVE}"
        )
    if (path / "saved_model.pbtxt").is_file():
        raise RepositoryError(
            f"{path} holds a SavedModel as text, not {_FILE}; load it and {_SAVE}"
        )
    raise RepositoryError(f"no {_FILE} in {path}; pass the folder of a SavedModel")


def _check_files(path: Path) -> None:
    """Check that only files of the folder would be copied, and that none blocks its reader."""
    top = path.resolve()
    for file in sorted(path.rglob("*")):
        target = os.path.realpath(file)  # Path.resolve raises an error for a ring of links
        if not Path(target).is_relative_to(top):
            raise RepositoryError(
                f"{file} links to {target}, outside of the SavedModel; if that belongs to "
                f"it, copy the folder with its targets (cp -rL {path} COPY) and pass the copy"
            )
        if not (file.is_dir() or file.is_file()):
            raise RepositoryError(f"{file} is neither a file nor a folder; delete it")


def _of_file(path: Path) -> str:
    if path.name == _FILE:
        return f"{path} is a file; pass its folder, {path.parent}"
    if path.suffix in (".keras", ".h5", ".hdf5"):
        return f"{path} is a Keras file, not a SavedModel; load it and {_SAVE}"
    return f"{path} is a file; pass the folder of a SavedModel"
