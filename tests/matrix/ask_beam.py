"""Lists made by a pipeline of Apache Beam are those made without; run by `make matrix`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

COMMAND = Path(sys.executable).parent / "shortlist"
WORKERS = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def run(*arguments: str) -> str:
    done = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stderr


def recommend(output: Path, *arguments: str, beam: Sequence[str] = ()) -> pa.Table:
    """Return the rows of a run in the order of their ids."""
    runner = ["--runner=DirectRunner"] if beam else []
    # What an approximate index finds besides excluded candidates depends on the batch.
    index = "brute_force" if "--exclude-seen" in arguments else "ivf"
    where = (f"--servable=models/retrieval_{index}/1", f"--output={output}")
    run("recommend", *where, *arguments, *runner, *beam)
    parts = sorted(output.glob("part-*"))
    if parts[0].suffix == ".jsonl":
        lines = [line for part in parts for line in part.read_text().splitlines()]
        table = pa.Table.from_pylist([json.loads(line) for line in lines])
    else:
        table = pyarrow.parquet.read_table(parts)
    return table.sort_by(table.column_names[0])


def main() -> None:
    sample = ("--data=sample", "--sample-users=200", "--sample-candidates=500")
    indexes = ("--index=brute_force", "--index=ivf")
    allowed = ("--allow=quality", "--allow=recall")
    run("export", *sample, "--sample-interactions=10000", *indexes, "--epochs=2", *allowed)
    lists = recommend(Path("all"), "--users=all", "-k=20")
    users, events = lists.column("user_id"), lists["candidate_ids"][0].as_py()[:2]
    pyarrow.parquet.write_table(pa.table({"who": users}), "users.parquet")
    Path("users.txt").write_text("\n".join(users.to_pylist()))
    Path("queries.jsonl").write_text(
        "\n".join(
            json.dumps(
                {"user_id": user, "history": events, "ages": [60, 5], "features": {"hour": 20}}
            )
            for user in users.to_pylist()
        )
    )
    compared = 0
    for number, arguments in enumerate(
        (
            ["--users=all", "-k=20"],
            ["--users=users.parquet", "--user-column=who", "-k=20", "--exclude-seen"],
            ["--users=queries.jsonl", "-k=5", "--format=jsonl"],
            ["--similar=all", "-k=5"],
        )
    ):
        alone = recommend(Path(f"alone-{number}"), *arguments)
        piped = recommend(Path(f"beam-{number}"), *arguments, beam=WORKERS)
        assert alone.drop_columns("scores").to_pylist() == piped.drop_columns("scores").to_pylist()
        for one, other in zip(alone["scores"], piped["scores"], strict=True):
            np.testing.assert_allclose(one.as_py(), other.as_py(), rtol=1e-6, atol=1e-6)
        compared += len(alone)
    texts = recommend(Path("texts"), "--users=users.txt", "-k=20", beam=WORKERS)
    assert texts.column("user_id") == users
    own = ("models/retrieval_brute_force", "users.txt", "own.jsonl")
    subprocess.run([sys.executable, "beam_pipeline.py", *own], check=True, timeout=600)
    rows = {row["user"]: row for row in map(json.loads, Path("own.jsonl").read_text().splitlines())}
    assert sorted(rows) == users.to_pylist()
    seen = recommend(Path("seen"), "--users=all", "-k=10", "--exclude-seen").to_pylist()
    assert [rows[row["user_id"]]["candidates"] for row in seen] == [
        row["candidate_ids"] for row in seen
    ]
    print(f"Apache Beam {version('apache-beam')}: {compared} lists equal those without it")  # noqa: T201


if __name__ == "__main__":
    main()
