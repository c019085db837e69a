"""Records as a server would log them."""

from typing import Any

import numpy as np

from shortlist.clients.tensors import to_tensor_proto
from shortlist.clients.wire import messages


def metadata(**values: Any) -> messages.LogMetadata:
    spec = messages.ModelSpec(name="retrieval", signature_name="serving_default")
    spec.version.value = 3
    return messages.LogMetadata(
        **{
            "model_spec": spec,
            "sampling_config": messages.SamplingConfig(sampling_rate=0.5),
            "timestamp_secs": 1_700_000_000,
            "time_us": 1_700_000_000_250_000,
            "latency_us": 1500,
            "transport": "GRPC",
            **values,
        }
    )


def request(**inputs: Any) -> messages.PredictRequest:
    message = messages.PredictRequest(
        model_spec=messages.ModelSpec(name="retrieval", signature_name="serving_default")
    )
    for name, value in (inputs or {"user_id": ["u1", "u2"]}).items():
        message.inputs[name].CopyFrom(to_tensor_proto(value))
    return message


def response(**outputs: Any) -> messages.PredictResponse:
    message = messages.PredictResponse()
    message.model_spec.version.value = 3
    outputs = outputs or {
        "candidate_ids": [["a", "b"], ["c", ""]],
        "scores": np.array([[2.0, 1.0], [0.5, -np.inf]], np.float32),
        "known_user": [True, False],
    }
    for name, value in outputs.items():
        message.outputs[name].CopyFrom(to_tensor_proto(value))
    return message
