"""Optimizers by their names in the configuration."""

from typing import Any

from shortlist.export._tf import tf

__all__ = ["LazyAdam", "make_optimizer"]


class LazyAdam(tf.keras.optimizers.legacy.Adam):
    """Adam that leaves rows unchanged if a step did not look them up.

    Adam updates all rows of a table and all their moments at each step. That is better for a
    small corpus, but costs memory traffic of seven times both tables per step: about 4 GB for
    a million candidates of 128 dimensions, when the rows of a batch and its sample are 0.1 GB.
    """

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        coefficients = (apply_state or {}).get((var.device, var.dtype.base_dtype))
        if coefficients is None:
            coefficients = self._fallback_apply_state(var.device, var.dtype.base_dtype)
        means, squares = self.get_slot(var, "m"), self.get_slot(var, "v")
        mean = tf.gather(means, indices) * coefficients["beta_1_t"]
        mean += grad * coefficients["one_minus_beta_1_t"]
        square = tf.gather(squares, indices) * coefficients["beta_2_t"]
        square += tf.square(grad) * coefficients["one_minus_beta_2_t"]
        # `lr` includes the bias correction of the step.
        change = coefficients["lr"] * mean / (tf.sqrt(square) + coefficients["epsilon"])
        return tf.group(
            means.scatter_update(tf.IndexedSlices(mean, indices)),
            squares.scatter_update(tf.IndexedSlices(square, indices)),
            var.scatter_sub(tf.IndexedSlices(change, indices)),
        )


def make_optimizer(name: str, learning_rate: float, *, lazy: bool = False) -> Any:
    """Create a Keras 2 optimizer.

    Args:
        name: `adam` or `adagrad`.
        learning_rate: Learning rate, above 0.
        lazy: Leave rows unchanged that a batch does not contain; Adagrad always does.
    """
    if name == "adam":
        kind = LazyAdam if lazy else tf.keras.optimizers.legacy.Adam
        return kind(learning_rate)
    return tf.keras.optimizers.legacy.Adagrad(learning_rate)
