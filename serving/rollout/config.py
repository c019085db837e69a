"""Files that servers and applications read: the configuration, and a canary's share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RepositoryError, RolloutError
from shortlist.serving.repository.files import write_atomically
from shortlist.serving.repository.server_config import STABLE, ModelEntry, entry_of, read_config
from shortlist.serving.rollout.state import CANARY

__all__ = ["SPLIT_FILE", "ConfigFile", "read_split", "write_split"]

# In the configuration file's folder. Each application splits its requests with
# `clients.Split`; the server knows nothing of it.
SPLIT_FILE: Final = "split.json"


class ConfigFile:
    """File that servers start from or poll.

    Servers do not tell their configuration, and a reload replaces all of it, so only this file
    knows every model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> ModelServerConfig:
        """Return the whole configuration.

        Raises:
            RolloutError: The file does not exist or does not list models.
        """
        try:
            config = read_config(self.path)
        except RepositoryError as exc:
            raise RolloutError(
                f"{exc}; name the file that the servers were started with: --config FILE "
                "(a reload replaces the whole configuration)"
            ) from exc
        if config.WhichOneof("config") == "custom_model_config":
            raise RolloutError(
                f"{self.path} holds a custom_model_config, which a reload cannot send; "
                "use a model_config_list"
            )
        return config

    def entry(self, name: str) -> ModelEntry | None:
        """Return the entry of one servable, or `None` if the file does not list it."""
        return entry_of(self.read(), name)

    def write(self, config: ModelServerConfig) -> None:
        """Replace the file; a server that polls it sees the old or the new, whole.

        Raises:
            RolloutError: The file cannot be written, for example on a full disk, and is
                unchanged.
        """
        try:
            write_atomically(self.path, text_format.MessageToString(config))
        except OSError as exc:
            raise RolloutError(
                f"cannot write {self.path}: {exc.strerror}; the file is unchanged. "
                "Make room, then repeat the command"
            ) from exc


def read_split(config_path: Path) -> dict[str, dict[str, float]]:
    """Return shares by label by model name; empty if no canary was ever started.

    Raises:
        RolloutError: The file exists and cannot be read.
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
    """Write the canary's share of one servable; 0 ends it.

    Args:
        config_path: The configuration file; the split is next to it.
        name: Model name.
        percent: Share of the canary, 0 to 100.

    Raises:
        ValueError: The share is not a percentage.
        RolloutError: The file cannot be written.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be between 0 and 100, got {percent:g}")
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
