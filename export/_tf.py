"""The only module of `export` that imports TensorFlow and its libraries.

TensorFlow Recommenders refuses Keras 3, and Keras picks its generation when TensorFlow
is first imported, so the switch is set here before anything else.
"""

import os
import sys
from typing import Any

from shortlist.clients.errors import ShortlistError
from shortlist.export.notices import without_notices
from shortlist.serving.installed import missing_package, scann_problem

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if _missing := missing_package(
    ["tensorflow", "tf_keras", "tensorflow_recommenders"], extra="export"
):
    raise ShortlistError(_missing)
if scann_problem():
    # TensorFlow Recommenders imports scann if it can, and does not expect one that fails to load.
    sys.modules["scann"] = None  # type: ignore[assignment]

with without_notices():
    import tensorflow as tf
    import tensorflow_recommenders as tfrs
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

__all__ = ["is_registered_op", "saved_model_pb2", "scann_ops", "tf", "tfrs"]


def is_registered_op(name: str) -> bool:
    """Return whether TensorFlow, or a library loaded into it, registers this op."""
    return op_def_registry.get(name) is not None


@tf.autograph.experimental.do_not_convert
def scann_ops() -> Any:
    """Return the module of ScaNN's ops, which registers them.

    Raises:
        ShortlistError: ScaNN is not installed, or does not fit this TensorFlow.
    """
    if problem := scann_problem():
        raise ShortlistError(problem)
    from scann.scann_ops.py import scann_ops

    return scann_ops
