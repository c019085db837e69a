"""Two versions of a ScaNN servable in one process have separate indexes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# As saved by TFRS: both versions use the same name for their searcher resource.
MAKE = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf, tensorflow_recommenders as tfrs
for version in (1, 2):
    rng = np.random.default_rng(version)
    vectors = rng.normal(size=(40, 8)).astype("f4")
    ids = [f"v{version}-{number}" for number in range(40)]
    index = tfrs.layers.factorized_top_k.ScaNN(
        k=3, num_leaves=4, num_leaves_to_search=4, num_reordering_candidates=40)
    index.index(tf.constant(vectors), tf.constant(ids))
    index(tf.zeros([1, 8]))
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.index = index
        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="query")])
        def serve(self, query):
            scores, found = self.index(query)
            return {"ids": found, "scores": scores}
    module = Module()
    folder = f"{sys.argv[1]}/{version}"
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve},
                        options=tf.saved_model.SaveOptions(namespace_whitelist=["Scann"]))
    np.save(f"{folder}/vectors.npy", vectors)
"""


@pytest.mark.slow
def test_each_version_searches_its_own_candidates(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAKE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    from shortlist.serving.embedded.runtime.servable import RuntimeOptions, load_servable

    servables = {
        version: load_servable(
            "m", version, str(tmp_path / str(version)), tags=["serve"], options=RuntimeOptions()
        )
        for version in (1, 2)
    }
    queries = np.random.default_rng(9).normal(size=(20, 8)).astype(np.float32)

    def wrong(version: int) -> list[Any]:
        """Return answers that differ from exact search over the version's own vectors."""
        vectors = np.load(tmp_path / str(version) / "vectors.npy")
        best = np.argsort(-(queries @ vectors.T), axis=1)[:, :3]
        answers = servables[version].run("serving_default", {"query": queries}, ["ids"])["ids"]
        expected = [[f"v{version}-{number}".encode() for number in row] for row in best]
        return [] if answers.tolist() == expected else [version, answers.tolist(), expected]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong, [1, 2] * 10)) == [[]] * 20
    servables[1].close()
    assert wrong(2) == []
