"""The fake server of the tests: two models, also with signatures that echo their inputs."""

from collections.abc import Mapping
from typing import Any

from shortlist.clients.testing import FakeModel, FakeServer, FakeSignature
from shortlist.clients.types import State

__all__ = ["CANDIDATES", "UNKNOWN", "ToyServer", "ranking", "score", "toy_model"]

UNKNOWN = "unknown-user"
ranking, score = FakeModel().ranking, FakeModel().score
CANDIDATES = list(FakeModel().candidates)


def _echo(inputs: Mapping[str, Any], version: int) -> dict[str, Any]:
    # JSON's whole numbers are floats by now.
    return {**inputs, "x": [[float(value) for value in row] for row in inputs["x"]]}


_ECHOED = {
    "x": ("DT_FLOAT", [-1, 2]),
    "n": ("DT_INT64", []),
    "flags": ("DT_BOOL", [-1]),
    "blob_bytes": ("DT_STRING", [-1]),
}


def toy_model(**options: Any) -> FakeModel:
    model = FakeModel(
        unknown_users=[UNKNOWN],
        seen={"42": ["c00", "c01"]},
        classify=lambda features: [("low", 0.25), ("high", features["x"])],
        regress=lambda features: features["x"] / 2 + 2,
        **options,
    )
    model.signatures["echo"] = FakeSignature(inputs=_ECHOED, outputs=_ECHOED, run=_echo)
    model.signatures["half_plus_two"] = FakeSignature(
        inputs={"x": ("DT_FLOAT", [-1])},
        outputs={"y": ("DT_FLOAT", [-1])},
        run=lambda inputs, version: {"y": [value / 2 + 2 for value in inputs["x"]]},
    )
    return model


class ToyServer(FakeServer):
    def __init__(self, **options: Any) -> None:
        models = {
            f"retrieval_{index}": toy_model(
                versions={1: State.AVAILABLE, 2: State.AVAILABLE},
                labels={"stable": 1, "canary": 2},
            )
            for index in ("brute_force", "ivf")
        }
        # Some servables fix the k of `similar` at export.
        similar = models["retrieval_ivf"].signatures["similar"]
        models["retrieval_ivf"].signatures["similar"] = FakeSignature(
            inputs={"candidate_id": ("DT_STRING", [-1])}, outputs=similar.outputs, run=similar.run
        )
        super().__init__(models, **options)

    def address(self, transport: str) -> str:
        return self.rest_address if transport == "rest" else self.grpc_address

    def port(self, transport: str) -> int:
        return int(self.address(transport).rpartition(":")[2])

    def operations(self) -> list[str]:
        return [call.operation for call in self.calls]

    def signatures(self) -> list[str]:
        return [call.signature for call in self.calls if call.operation == "predict"]
