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
    "MULTI_INFERENCE",
    "PREDICT",
    "REGRESS",
    "SESSION_RUN",
    "Method",
]


@dataclass(frozen=True)
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

PREDICT: Final = Method(_PREDICTION, "Predict", messages.PredictRequest, messages.PredictResponse)
CLASSIFY: Final = Method(
    _PREDICTION, "Classify", messages.ClassificationRequest, messages.ClassificationResponse
)
REGRESS: Final = Method(
    _PREDICTION, "Regress", messages.RegressionRequest, messages.RegressionResponse
)
MULTI_INFERENCE: Final = Method(
    _PREDICTION, "MultiInference", messages.MultiInferenceRequest, messages.MultiInferenceResponse
)
GET_MODEL_METADATA: Final = Method(
    _PREDICTION,
    "GetModelMetadata",
    messages.GetModelMetadataRequest,
    messages.GetModelMetadataResponse,
)
GET_MODEL_STATUS: Final = Method(
    _MODEL, "GetModelStatus", messages.GetModelStatusRequest, messages.GetModelStatusResponse
)
HANDLE_RELOAD_CONFIG_REQUEST: Final = Method(
    _MODEL, "HandleReloadConfigRequest", messages.ReloadConfigRequest, messages.ReloadConfigResponse
)
SESSION_RUN: Final = Method(
    _SESSION, "SessionRun", messages.SessionRunRequest, messages.SessionRunResponse
)
HEALTH_CHECK: Final = Method(
    _HEALTH, "Check", messages.HealthCheckRequest, messages.HealthCheckResponse
)
HEALTH_WATCH: Final = Method(
    _HEALTH, "Watch", messages.HealthCheckRequest, messages.HealthCheckResponse
)
