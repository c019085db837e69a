"""Where the answers recorded from TensorFlow Serving are, and the models they came from."""

from tests.support.paths import ROOT

__all__ = ["MODELS", "RECORDED"]

RECORDED = ROOT / "tests" / "conformance" / "recorded"
MODELS = RECORDED / "models"
