"""A servable that needs no TensorFlow: y = 2 x, row by row."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import always_active

Arrays = Mapping[str, Any]


class Doubling:
    """Refuses negative values, like a failing op; runs can be held back."""

    name, version = "m", 1

    def __init__(self) -> None:
        definition = messages.SignatureDef(method_name="tensorflow/serving/predict")
        definition.inputs["x"].name = "x:0"
        definition.inputs["x"].dtype = messages.DataType.DT_FLOAT
        definition.outputs["y"].name = "y:0"
        definition.outputs["y"].dtype = messages.DataType.DT_FLOAT
        self.signatures = {"serving_default": definition}
        self.runs: list[int] = []
        self.timeouts: list[float | None] = []
        self.entered = threading.Semaphore(0)  # released by each run before it may be held back
        self.hold = threading.Event()
        self.hold.set()
        self.closed = False

    def run(
        self,
        signature_name: str,
        inputs: Arrays,
        output_names: Sequence[str],
        *,
        timeout: float | None = None,
        active: Callable[[], bool] = always_active,
    ) -> dict[str, Any]:
        self.entered.release()
        self.hold.wait(20)
        self.timeouts.append(timeout)
        self.runs.append(inputs["x"].shape[0] if inputs["x"].ndim else 1)
        if (inputs["x"] < 0).any():
            raise StatusError(Code.INVALID_ARGUMENT, "negative" + "!" * 2000)
        return {"y": inputs["x"] * 2}

    def run_tensors(
        self, feeds: Arrays, fetches: Sequence[str], *, timeout: float | None = None
    ) -> list[Any]:
        return [self.run("", {"x": feeds["x:0"]}, ["y"], timeout=timeout)["y"]]

    def close(self) -> None:
        self.closed = True
