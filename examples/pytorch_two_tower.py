"""Train two towers with PyTorch, publish their vectors with Shortlist, and ask them.

    pip install torch
    python examples/pytorch_two_tower.py WORK_DIR

Neither ONNX nor TensorFlow code is needed: both towers become tables of vectors.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from serve_and_ask import ask

USERS, FILMS, EVENTS, DIMENSION = 200, 400, 12_000, 16


def interactions() -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Return users, films, and which user watched which film: groups with a common taste."""
    random = np.random.default_rng(7)
    users = random.integers(0, USERS, EVENTS)
    films = (users % 8) * (FILMS // 8) + random.zipf(1.4, EVENTS) % (FILMS // 8)
    return [f"user-{i}" for i in range(USERS)], [f"film-{i}" for i in range(FILMS)], users, films


def tower(rows: int) -> torch.nn.Module:
    """Return a tower from a position to a vector."""
    return torch.nn.Sequential(
        torch.nn.Embedding(rows, DIMENSION), torch.nn.Linear(DIMENSION, DIMENSION)
    )


def main(work: Path) -> None:
    """Train, export, publish and ask."""
    torch.manual_seed(7)
    user_ids, film_ids, users, films = interactions()
    query_tower, film_tower = tower(USERS), tower(FILMS)
    optimizer = torch.optim.Adam([*query_tower.parameters(), *film_tower.parameters()], lr=0.01)
    events = torch.tensor(np.stack([users, films], axis=1))
    for epoch in range(6):
        losses = []
        for batch in events[torch.randperm(EVENTS)].split(256):
            logits = query_tower(batch[:, 0]) @ film_tower(batch[:, 1]).T
            # The other films of the batch are the negatives.
            loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(batch)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")

    with torch.no_grad():
        queries = query_tower(torch.arange(USERS)).numpy()
        embeddings = film_tower(torch.arange(FILMS)).numpy()
    genres = np.array([f"genre {i // (FILMS // 8)}" for i in range(FILMS)])
    np.savez(work / "users.npz", user_id=np.array(user_ids), embedding=queries)
    np.savez(
        work / "films.npz", candidate_id=np.array(film_ids), embedding=embeddings, genre=genres
    )
    np.savez(
        work / "watched.npz",
        user_id=np.array(user_ids)[users],
        candidate_id=np.array(film_ids)[films],
    )
    subprocess.run(
        [
            sys.executable, "-m", "shortlist", "index",
            "--query-tower", str(work / "users.npz"), "--candidates", str(work / "films.npz"),
            "--interactions", str(work / "watched.npz"),
            "--model", "films", "--index", "ivf", "--repository", str(work / "models"),
        ],
        check=True,
    )  # fmt: skip
    ask(work / "models", "films_ivf", ["user-3", "user-4"], {"genre": ["genre 3"]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
