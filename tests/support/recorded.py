"""Folders of the answers recorded from TensorFlow Serving, and of the models that gave them."""

from tests.support.paths import ROOT

__all__ = ["MODELS", "RECORDED"]

RECORDED = ROOT / "tests" / "conformance" / "recorded"
MODELS = RECORDED / "models"
