"""Brute-force servables with random vectors, for benchmarks of servers.

`python -m shortlist.serving.embedded.runtime.sample_servables REPOSITORY CANDIDATES...` writes
`REPOSITORY/brute_force_<candidates>/1` for each number.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from shortlist.clients import contract
from shortlist.serving.embedded.runtime import _tf

__all__ = ["main", "sample_name"]

DIMENSION: Final = 32
TOP_K: Final = 10
USERS: Final = 1000
SEED: Final = 20


def sample_name(candidates: int) -> str:
    """Return the name of the servable with this number of candidates."""
    return f"brute_force_{candidates}"


def _make(path: Path, candidates: int) -> None:
    tf: Any = _tf.public_api()
    rng = np.random.default_rng(SEED)

    class Retrieval(tf.Module):
        """Scores every candidate with the user's vector."""

        def __init__(self) -> None:
            super().__init__()
            keys = tf.constant([str(number) for number in range(USERS)])
            rows = tf.range(1, USERS + 1, dtype=tf.int64)
            initializer = tf.lookup.KeyValueTensorInitializer(keys, rows)
            self.rows = tf.lookup.StaticHashTable(initializer, 0)
            self.users = tf.Variable(rng.normal(size=(USERS + 1, DIMENSION)).astype("f4"))
            self.vectors = tf.Variable(rng.normal(size=(candidates, DIMENSION)).astype("f4"))
            ids = [f"Candidate {number} (1999)" for number in range(candidates)]
            self.ids = tf.Variable(tf.constant(ids))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=contract.USER_ID)])
        def retrieve(self, user_id: Any) -> Any:
            """Return the best candidates for each user."""
            queries = tf.gather(self.users, self.rows.lookup(user_id))
            scores, positions = tf.math.top_k(
                tf.matmul(queries, self.vectors, transpose_b=True), TOP_K
            )
            return {
                contract.CANDIDATE_IDS: tf.gather(self.ids, positions),
                contract.SCORES: scores,
            }

    model = Retrieval()
    tf.saved_model.save(model, str(path), signatures={contract.SERVING_DEFAULT: model.retrieve})


def main(argv: Sequence[str] | None = None) -> int:
    """Write the servables that do not exist yet."""
    repository, *numbers = sys.argv[1:] if argv is None else argv
    for number in map(int, numbers):
        path = Path(repository, sample_name(number), "1")
        if not path.exists():
            staging = path.with_name(".making")
            _make(staging, number)
            staging.rename(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
