"""The one module of `export` that imports TensorFlow and what is built on it.

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

__all__ = ["saved_model_pb2", "scann_ops", "tf", "tfrs"]
