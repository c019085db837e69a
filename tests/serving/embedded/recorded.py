"""Where the answers recorded from TensorFlow Serving are, and the models they came from."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CORPUS = Path(os.environ.get("SHORTLIST_CONFORMANCE", ROOT.parent / "shared" / "conformance"))
MODELS = CORPUS / "models"

needs_corpus = pytest.mark.skipif(
    not MODELS.is_dir(),
    reason=f"no recorded answers at {CORPUS}; set SHORTLIST_CONFORMANCE to their folder",
)
