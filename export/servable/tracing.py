"""Functions of a servable, traced once."""

from collections.abc import Callable
from typing import Any

from shortlist.export._tf import tf

__all__ = ["Once", "concrete"]


class Once:
    """A part of several signatures that is traced and stored once.

    Not a `tf.function` itself, because TensorFlow would store those of a module once more.
    """

    def __init__(self, function: Callable[..., Any], *specs: tf.TensorSpec) -> None:
        self._traced = tf.function(function, input_signature=specs, autograph=False)

    def __call__(self, *inputs: tf.Tensor) -> Any:
        """Call the traced function."""
        return self._traced(*inputs)


def concrete(function: Callable[..., dict[str, tf.Tensor]], *specs: tf.TensorSpec) -> Any:
    """Return a function traced for its only inputs."""
    traced = tf.function(function, input_signature=specs, autograph=False)
    return traced.get_concrete_function()
