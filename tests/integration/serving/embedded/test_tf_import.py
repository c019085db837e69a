"""The server loads only TensorFlow's runtime, and the whole API stays available."""

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
def test_runtime_loads_neither_keras_nor_the_public_api() -> None:
    out = run(
        "import sys; from shortlist.serving.embedded.runtime import _tf; _tf.load_scann_ops();"
        "print(sorted({'keras', 'tf_keras', 'tensorflow.keras'} & set(sys.modules)))"
    )
    assert out.strip() == "[]"


@pytest.mark.slow
def test_public_api_works_after_the_runtime() -> None:
    out = run(
        "from shortlist.serving.embedded.runtime import _tf; import tensorflow as tf;"
        "print(int(tf.constant(20) + 1), tf.__version__)"
    )
    assert out.split()[0] == "21"
