"""From `ModelServerConfig` to the checked settings of each model."""

import logging
import re
from dataclasses import dataclass, field
from typing import Final

from shortlist.clients.wire.messages import ModelConfig, ModelServerConfig, ModelType
from shortlist.serving.embedded.api.errors import invalid
from shortlist.serving.embedded.lifecycle.version_policy import (
    AllVersions,
    LatestVersions,
    SpecificVersions,
    VersionPolicy,
)

__all__ = [
    "ModelSettings",
    "check_list",
    "check_platforms",
    "models_of",
    "single_model",
]

log = logging.getLogger(__name__)

_TENSORFLOW: Final = "tensorflow"
_SCHEME: Final = re.compile(r"([a-zA-Z][0-9a-zA-Z.]*)://")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """One model to serve.

    Attributes:
        name: Model name.
        base_path: Folder of the model's versions; absolute, or a URI.
        policy: Choice of the versions to serve.
    """

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=LatestVersions)


def single_model(name: str, base_path: str) -> ModelServerConfig:
    """Return the configuration for `--model_name` and `--model_base_path`."""
    config = ModelServerConfig()
    model = config.model_config_list.config.add()
    model.name, model.base_path, model.model_platform = name, base_path, _TENSORFLOW
    return config


def _platform(model: ModelConfig) -> str:
    platform: str = model.model_platform
    if model.model_type != ModelType.MODEL_TYPE_UNSPECIFIED:
        log.warning(
            "Deprecated ModelServerConfig::model_type field used. "
            "Prefer ModelServerConfig::model_platform."
        )
        if platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {model.name}",
            )
        if model.model_type != ModelType.TENSORFLOW:
            raise invalid(
                f"ModelServerConfig::model_type choice {model.model_type} not supported.",
            )
        platform = _TENSORFLOW
    if not platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}",
        )
    return platform


def _policy(model: ModelConfig) -> VersionPolicy:
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return AllVersions()
        case "specific":
            return SpecificVersions(versions=frozenset(policy.specific.versions))
        case _:
            return LatestVersions(num_versions=max(policy.latest.num_versions, 1))


def check_list(config: ModelServerConfig) -> None:
    """Refuse a duplicate name and a relative base path.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    names: set[str] = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise invalid(
                f"Illegal to list model {model.name} multiple times in config list",
            )
        names.add(model.name)
    for model in config.model_config_list.config:
        if not (model.base_path.startswith("/") or _SCHEME.match(model.base_path)):
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}",
            )


def check_platforms(old: ModelServerConfig, new: ModelServerConfig) -> None:
    """Refuse a new configuration that changes a model's platform.

    Raises:
        StatusError: INVALID_ARGUMENT; a platform changes or is missing.
    """
    before = {model.name: _platform(model) for model in old.model_config_list.config}
    for model in new.model_config_list.config:
        if model.name not in before:
            continue
        platform = _platform(model)
        if platform != before[model.name]:
            raise invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was "
                f"{before[model.name]} and new platform requested is {platform}",
            )


def models_of(config: ModelServerConfig) -> list[ModelSettings]:
    """Return the models in a `model_config_list`.

    Raises:
        StatusError: INVALID_ARGUMENT; a platform is missing or not supported.
    """
    models = []
    for model in config.model_config_list.config:
        platform = _platform(model)
        if platform != _TENSORFLOW:
            raise invalid(
                f"Model {model.name} requests unsupported platform {platform}",
            )
        models.append(
            ModelSettings(name=model.name, base_path=model.base_path, policy=_policy(model))
        )
    return models
