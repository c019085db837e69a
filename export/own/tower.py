"""Query and candidate towers from SavedModels and Python, whatever their inputs."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.config import DataError
from shortlist.export.servable.contents import Inputs
from shortlist.serving.repository.files import temporary_folder

__all__ = ["InputSignature", "SavedTower", "load_tower"]

_ROWS = 1024  # that a tower embeds at once
_RESERVED = frozenset(
    {
        contract.K,
        contract.EXCLUDE,
        contract.EXCLUDE_SEEN,
        contract.FILTER_ANY,
        contract.FILTER_ALL,
        contract.FILTER_MIN,
        contract.FILTER_MAX,
    }
)

# Inputs of a Python callable: by position, or by name for one that takes a dictionary.
InputSignature = Sequence[tf.TensorSpec] | Mapping[str, tf.TensorSpec]


class SavedTower(tf.Module):
    """Askers whose queries a signature of a SavedModel computes.

    Attributes:
        inputs: Inputs of the signature, by name in alphabetical order.
        dimension: Length of an embedding; None until it has embedded something.
        name_in_messages: Where the tower comes from.
    """

    def __init__(
        self, path: Path, *, signature: str | None = None, output: str | None = None
    ) -> None:
        """Load a SavedModel.

        Args:
            path: Folder of the SavedModel.
            signature: Name of the signature; None for `serving_default`, or the only one that
                returns vectors.
            output: Name of its output; None for the only one with vectors.

        Raises:
            DataError: There is no such SavedModel or signature, or it cannot be a tower.
        """
        super().__init__()
        self.name_in_messages = str(path)
        self.dimension: int | None = None
        if not (path / "saved_model.pb").is_file():
            raise DataError(f"no saved_model.pb in {path}; {_remedy(path)}")
        self._loaded = tf.saved_model.load(str(path))  # tracked, with its variables and tables
        name, self._output = _vectors_of(path, self._loaded.signatures, signature, output)
        self._function = self._loaded.signatures[name]
        specs = self._function.structured_input_signature[1]
        # Keras takes [batch, 1] where requests have one value per row.
        self._columns = {key for key, spec in specs.items() if spec.shape.as_list()[1:] == [1]}
        self.inputs = tuple(
            tf.TensorSpec(spec.shape[:1] if key in self._columns else spec.shape, spec.dtype, key)
            for key, spec in sorted(specs.items())
        )
        for spec in self.inputs:
            if spec.name in _RESERVED:
                raise DataError(
                    f"{path}: the input {spec.name!r} has the name of an option of `retrieve`; "
                    "save the tower with another name"
                )
            if spec.shape.rank in (None, 0) or spec.shape[0] is not None:
                raise DataError(
                    f"{path}: the input {spec.name!r} has the shape {spec.shape}; save the tower "
                    "with None as the first dimension of each input, one row per query"
                )

    def users(self, *asked: tf.Tensor) -> None:
        """Return None: a tower does not tell which users it knows."""

    def queries(self, users: tf.Tensor | None, *asked: tf.Tensor) -> tf.Tensor:
        """Return the tower's vectors, float32 `[batch, d]`."""
        inputs = {
            spec.name: value[:, None] if spec.name in self._columns else value
            for spec, value in zip(self.inputs, asked, strict=True)
        }
        vectors = tf.cast(self._function(**inputs)[self._output], tf.float32)
        if vectors.shape.rank == 3:  # [batch, 1, d], of inputs [batch, 1]
            vectors = tf.squeeze(vectors, axis=1)
        return tf.ensure_shape(vectors, [None, self.dimension])

    def embed(self, rows: Inputs) -> npt.NDArray[np.float32]:
        """Return the vectors of rows of inputs.

        Raises:
            DataError: The tower cannot compute them, or a vector is not finite.
        """
        count = len(next(iter(rows.values())))
        parts = []
        for start in range(0, count, _ROWS):
            part = [
                tf.constant(rows[spec.name][start : start + _ROWS], spec.dtype)
                for spec in self.inputs
            ]
            try:
                vectors = self.queries(None, *part).numpy()
            except (tf.errors.OpError, ValueError) as exc:
                raise DataError(
                    f"{self.name_in_messages} cannot embed rows {start + 1} to "
                    f"{min(start + _ROWS, count)}: {_first_line(exc)}; correct their inputs"
                ) from exc
            parts.append(vectors)
        embedded = np.concatenate(parts)
        wrong = np.flatnonzero(~np.isfinite(embedded).all(axis=1))
        if len(wrong):
            raise DataError(
                f"{self.name_in_messages} gives a vector that is not finite for row "
                f"{wrong[0] + 1} of its inputs ({len(wrong)} in all); correct the tower or them"
            )
        self.dimension = int(embedded.shape[1])
        return embedded


@contextmanager
def load_tower(
    tower: Any,
    *,
    signature: str | None = None,
    output: str | None = None,
    input_signature: InputSignature | None = None,
) -> Iterator[SavedTower]:
    """Load a tower from a folder, or from Python by way of a temporary SavedModel.

    Args:
        tower: Folder of a SavedModel; a Keras model (it is exported); a `tf.Module`,
            `tf.function` or callable of TensorFlow ops.
        signature: Name of the SavedModel's signature; see `SavedTower`.
        output: Name of its output.
        input_signature: Inputs of a module or callable, unless it has an own one.

    Raises:
        DataError: It cannot be loaded.
    """
    if isinstance(tower, str | Path):
        yield SavedTower(Path(tower).expanduser(), signature=signature, output=output)
        return
    with temporary_folder("tower") as folder:
        path = folder / "tower"
        if input_signature is None and hasattr(tower, "export"):
            with contextlib.redirect_stdout(io.StringIO()):  # Keras prints a summary
                tower.export(str(path))
        else:
            _save(tower, path, input_signature)
        loaded = SavedTower(path, signature=signature, output=output)
        loaded.name_in_messages = f"the tower {type(tower).__name__}"
        yield loaded


def _save(tower: Any, path: Path, input_signature: InputSignature | None) -> None:
    own = getattr(tower, "input_signature", None)
    if own is None and callable(tower):  # a tf.Module whose __call__ is a tf.function
        own = getattr(tower.__call__, "input_signature", None)
    signature = input_signature if input_signature is not None else own
    if signature is None or not callable(tower):
        raise DataError(
            f"the inputs of the tower {tower!r} are not known; pass input_signature=[tf.TensorSpec("
            '[None], tf.string, name="user_id"), ...], or the folder of a SavedModel'
        )
    specs = dict(signature) if isinstance(signature, Mapping) else None
    ordered = [
        tf.TensorSpec(spec.shape, spec.dtype, name=key)
        for key, spec in (
            specs.items()
            if specs is not None
            else ((spec.name or f"input_{i}", spec) for i, spec in enumerate(signature))
        )
    ]

    def call(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        if specs is not None:
            return {"embedding": tower(dict(zip(specs, inputs, strict=True)))}
        return {"embedding": tower(*inputs)}

    traced = tf.function(call, input_signature=ordered, autograph=False).get_concrete_function()
    module = tf.Module()
    module.tower = tower if isinstance(tower, tf.Module) else None
    try:
        tf.saved_model.save(module, str(path), signatures=traced)
    except AssertionError as exc:
        raise DataError(
            f"the tower {tower!r} uses variables or tables that it does not hold; pass the "
            "tf.Module or Keras model that holds them"
        ) from exc


def _vectors_of(
    path: Path, signatures: Mapping[str, Any], signature: str | None, output: str | None
) -> tuple[str, str]:
    """Return the names of the signature and output that hold one vector per row."""
    if signature is not None and signature not in signatures:
        raise DataError(
            f"{path} has no signature {signature!r}; there are: {', '.join(signatures) or 'none'}"
        )
    if not signatures:
        raise DataError(
            f"{path} has no signatures; call the tower once before saving it, or pass signatures= "
            "to tf.saved_model.save"
        )
    names = [signature] if signature is not None else list(signatures)
    found = {name: _vector_outputs(signatures[name].structured_outputs) for name in names}
    if output is not None:
        found = {name: [output] for name in names if output in signatures[name].structured_outputs}
    fitting = [name for name, outputs in found.items() if len(outputs) == 1]
    if contract.SERVING_DEFAULT in fitting:
        fitting = [contract.SERVING_DEFAULT]
    if len(fitting) == 1:
        return fitting[0], found[fitting[0]][0]
    shown = "; ".join(
        f"{name} -> "
        + ", ".join(
            f"{key} {spec.dtype.name} {spec.shape}"
            for key, spec in signatures[name].structured_outputs.items()
        )
        for name in names
    )
    if fitting:
        raise DataError(
            f"{path} has several signatures that return vectors ({shown}); choose one with "
            "--signature"
        )
    raise DataError(
        f"{path} has no output that is one vector of floating-point numbers per row ({shown}); "
        "choose it with --signature and --output, or save the tower alone"
    )


def _vector_outputs(outputs: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, spec in outputs.items()
        if spec.dtype.is_floating
        and (
            spec.shape.rank in (None, 2)
            or (spec.shape.rank == 3 and spec.shape[1] == 1)  # Keras, of inputs [batch, 1]
        )
    ]


def _remedy(path: Path) -> str:
    if path.suffix in (".keras", ".h5"):
        return "load it with Keras and write a SavedModel with model.export(folder)"
    if not path.exists():
        return "check the path"
    return "give the folder of a SavedModel, or a Parquet, CSV or NPZ file of vectors"


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0]
