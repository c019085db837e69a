"""The server's TensorFlow is the runtime alone, and the whole API stays within reach."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_runtime_comes_without_keras_and_the_public_api() -> None:
    out = run(
        "import sys; from shortlist.serving.embedded.runtime import _tf; _tf.load_scann_ops();"
        "print(sorted({'keras', 'tf_keras', 'tensorflow.keras'} & set(sys.modules)))"
    )
    assert out.strip() == "[]"


@pytest.mark.slow
def test_public_api_works_after_the_runtime_was_loaded() -> None:
    out = run(
        "from shortlist.serving.embedded.runtime import _tf; import tensorflow as tf;"
        "print(int(tf.constant(20) + 1), tf.__version__)"
    )
    assert out.split()[0] == "21"
