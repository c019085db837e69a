"""The server loads only TensorFlow's runtime, and the whole API stays available."""

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
def test_a_scann_servable_without_scann_says_what_to_install() -> None:
    """It loads, as on a stock server, so only the log can tell before the first request."""
    model = Path(__file__).parents[3] / "conformance/recorded/models/retrieval_scann/1"
    out = run(
        "import logging, sys; logging.basicConfig(stream=sys.stdout)\n"
        "from shortlist.serving import installed\n"
        "from tests.support.packages import versions\n"
        "installed.version = versions(tensorflow='2.20.0')\n"
        "from shortlist.serving.embedded.runtime.servable import RuntimeOptions, load_servable\n"
        f"load_servable('s', 1, {str(model)!r}, tags=['serve'], options=RuntimeOptions())"
    )
    assert "s version 1 cannot answer: scann is not installed; run: pip install" in out
