"""The only module of `export` that imports TensorFlow and its libraries.

TensorFlow Recommenders refuses Keras 3, and Keras picks its generation when TensorFlow
is first imported, so the switch is set here before anything else.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tensorflow_recommenders as tfrs
from scann.scann_ops.py import scann_ops
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

__all__ = ["is_registered_op", "saved_model_pb2", "scann_ops", "tf", "tfrs"]


def is_registered_op(name: str) -> bool:
    """Return whether TensorFlow, or a library loaded into it, registers this op."""
    return op_def_registry.get(name) is not None
