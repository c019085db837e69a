"""The share of requests that a canary is meant to get, where applications can read it.

The split itself is made by `clients.Split` in each application; the server knows none.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.files import write_atomically
from shortlist.serving.rollout.state import CANARY, STABLE

__all__ = ["SPLIT_FILE", "read_split", "write_split"]

SPLIT_FILE = "split.json"  # beside the configuration file


def read_split(config_path: Path) -> dict[str, dict[str, float]]:
    """Share by label by model name; empty where no canary was ever started.

    Raises:
        RolloutError: The file is there and holds something else.
    """
    path = config_path.parent / SPLIT_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {str(label): float(share) for label, share in shares.items()}
            for name, shares in stored.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as exc:
        raise RolloutError(f"{path} cannot be read ({exc}); delete it") from exc


def write_split(config_path: Path, name: str, percent: float) -> Mapping[str, float]:
    """Writes the canary's share of one servable; 0 ends it.

    Args:
        config_path: The configuration file; the split lies beside it.
        name: Model name.
        percent: Share of the canary, from 0 to 100.

    Raises:
        ValueError: The share is no percentage.
        RolloutError: The file cannot be written.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must lie between 0 and 100, got {percent:g}")
    shares = {STABLE: 1.0} if percent == 0 else _shares(percent)
    stored = {**read_split(config_path), name: shares}
    path = config_path.parent / SPLIT_FILE
    try:
        write_atomically(path, json.dumps(stored, indent=2) + "\n")
    except OSError as exc:
        raise RolloutError(f"cannot write {path}: {exc.strerror}") from exc
    return shares


def _shares(percent: float) -> dict[str, float]:
    canary = round(percent / 100, 6)
    return {STABLE: round(1 - canary, 6), CANARY: canary}
