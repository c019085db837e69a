"""A fake model server for the tests of applications, without TensorFlow and NumPy.

It speaks TensorFlow Serving's REST and gRPC APIs on free ports of the loopback interface:

    from shortlist.clients import GrpcClient
    from shortlist.clients.testing import FakeServer

    with FakeServer() as server, GrpcClient(server.grpc_address) as client:
        server.models["retrieval_brute_force"].rankings["42"] = [("c07", 0.9), ("c01", 0.5)]
        (retrieval,) = client.retrieve(["42"])
        assert retrieval.candidate_ids == ("c07", "c01")

        server.fail("UNAVAILABLE", "restarting")  # the next request; the client tries again
        client.retrieve(["42"])
        assert [call.operation for call in server.calls] == ["predict"] * 3
"""

from shortlist.clients.testing.model import FakeModel, FakeSignature
from shortlist.clients.testing.server import FakeServer, ReceivedCall

__all__ = ["FakeModel", "FakeServer", "FakeSignature", "ReceivedCall"]
