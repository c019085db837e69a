"""Paths and messages of the server's RPCs, for stubs and servers.

The paths have TensorFlow Serving's service names.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from shortlist.clients.wire import messages

__all__ = [
    "CLASSIFY",
    "GET_MODEL_METADATA",
    "GET_MODEL_STATUS",
    "HANDLE_RELOAD_CONFIG_REQUEST",
    "HEALTH_CHECK",
    "HEALTH_WATCH",
    "METHODS",
    "MULTI_INFERENCE",
    "PREDICT",
    "REGRESS",
    "SESSION_RUN",
    "Method",
]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One RPC; unary, except `HEALTH_WATCH`, whose response is a stream.

    Attributes:
        service: Full name of the service.
        name: Name of the RPC within it.
        request: Message class of the request.
        response: Message class of the response.
    """

    service: str
    name: str
    request: Any
    response: Any

    @cached_property  # every call uses it
    def path(self) -> str:
        """Value of HTTP/2's `:path`."""
        return f"/{self.service}/{self.name}"


_PREDICTION: Final = "tensorflow.serving.PredictionService"
_MODEL: Final = "tensorflow.serving.ModelService"
_SESSION: Final = "tensorflow.serving.SessionService"
_HEALTH: Final = "grpc.health.v1.Health"

PREDICT: Final = Method(
    service=_PREDICTION,
    name="Predict",
    request=messages.PredictRequest,
    response=messages.PredictResponse,
)
CLASSIFY: Final = Method(
    service=_PREDICTION,
    name="Classify",
    request=messages.ClassificationRequest,
    response=messages.ClassificationResponse,
)
REGRESS: Final = Method(
    service=_PREDICTION,
    name="Regress",
    request=messages.RegressionRequest,
    response=messages.RegressionResponse,
)
MULTI_INFERENCE: Final = Method(
    service=_PREDICTION,
    name="MultiInference",
    request=messages.MultiInferenceRequest,
    response=messages.MultiInferenceResponse,
)
GET_MODEL_METADATA: Final = Method(
    service=_PREDICTION,
    name="GetModelMetadata",
    request=messages.GetModelMetadataRequest,
    response=messages.GetModelMetadataResponse,
)
GET_MODEL_STATUS: Final = Method(
    service=_MODEL,
    name="GetModelStatus",
    request=messages.GetModelStatusRequest,
    response=messages.GetModelStatusResponse,
)
HANDLE_RELOAD_CONFIG_REQUEST: Final = Method(
    service=_MODEL,
    name="HandleReloadConfigRequest",
    request=messages.ReloadConfigRequest,
    response=messages.ReloadConfigResponse,
)
SESSION_RUN: Final = Method(
    service=_SESSION,
    name="SessionRun",
    request=messages.SessionRunRequest,
    response=messages.SessionRunResponse,
)
HEALTH_CHECK: Final = Method(
    service=_HEALTH,
    name="Check",
    request=messages.HealthCheckRequest,
    response=messages.HealthCheckResponse,
)
HEALTH_WATCH: Final = Method(
    service=_HEALTH,
    name="Watch",
    request=messages.HealthCheckRequest,
    response=messages.HealthCheckResponse,
)

METHODS: Final = (
    PREDICT,
    CLASSIFY,
    REGRESS,
    MULTI_INFERENCE,
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    HANDLE_RELOAD_CONFIG_REQUEST,
    SESSION_RUN,
    HEALTH_CHECK,
    HEALTH_WATCH,
)
