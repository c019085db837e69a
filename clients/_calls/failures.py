"""Errors for failures that a transport received, each with a remedy."""

import re
from typing import Final

from shortlist.clients import contract, errors
from shortlist.clients._calls.ports import wrong_port
from shortlist.clients._codecs.requests import Request

__all__ = ["failure", "no_signature", "too_late", "unreachable", "without_advice"]

_LABEL: Final = re.compile(r"Unrecognized servable version label")
_SIGNATURE: Final = re.compile(
    r"Serving signature (?:key|name): ?\"|Serving signature key \"|not found in signature def"
)
_OP: Final = re.compile(r"Op type not registered '([^']+)'")
# Sizes that no second try makes smaller: of gRPC, and of our server with the flag that limits them.
_ANSWER_TOO_LARGE: Final = re.compile(r"(?:CLIENT: Received|Decompressed) message larger than max")
_REQUEST_TOO_LARGE: Final = re.compile(r"message larger than max|\(--max_\w+\)")
_MAX_RECEIVED: Final = 500  # characters of the other side's text that an error repeats

_START: Final = (
    "check that the server runs there (it opens its ports only when every model is AVAILABLE), or "
    "start one: shortlist serve --repository DIR"
)
_CLOSED: Final = re.compile(r"closed|reset|EOF|Broken pipe")
_NO_PORT: Final = re.compile(r"https?://(\[[^]]*\]|[^/:]*)(/.*)?")
_USUAL: Final = f":{contract.DEFAULT_REST_PORT}"
_IF_TLS: Final = "if the port speaks TLS, pass tls=True or --tls"
_IF_CERTIFICATE: Final = "perhaps it demands a client certificate, or it is the other of its ports"
_CERTIFICATES: Final = (
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED"),
        "pass the authority that signed the server's certificate: Tls(ca=FILE) or --ca FILE",
    ),
    (
        re.compile(r"(?i)certificate.required|handshake.failure"),
        "pass a client certificate: Tls(certificate=FILE, private_key=FILE) or --certificate FILE",
    ),
)


def _asked(request: Request) -> str:
    return f"{request.operation} of {request.target}" if request.target else request.operation


def without_advice(error: errors.ServingError) -> str:
    """Return the message of an error from `failure` up to its advice."""
    text, received = str(error), error.received
    if received is None or received not in text:
        return text
    return text[: text.index(received) + len(received)]


def _shortened(text: str) -> str:
    text = " ".join(text[: 2 * _MAX_RECEIVED].split())
    return text if len(text) <= _MAX_RECEIVED else text[: _MAX_RECEIVED - 1] + "…"


def _advice(kind: type[errors.ServingError], op: str | None, text: str, show: str) -> str:
    if _ANSWER_TOO_LARGE.search(text):
        return (
            "ask for less at a time (Limits.batch_size, k), or raise Limits(max_answer_bytes=...)"
        )
    if kind is errors.InvalidRequest and _REQUEST_TOO_LARGE.search(text):
        return "Limits(batch_size=...) splits batches into smaller requests"
    if "Conversion of JSON Value" in text:
        return (
            "the server's REST API takes no inputs of this type; use GrpcClient (--transport grpc)"
        )
    if op is not None:
        if op.startswith("Scann>"):
            return (
                "this server lacks ScaNN's ops; query the servable with index brute_force or ivf, "
                "or serve it with `shortlist serve --server embedded` or an image that "
                "has the ScaNN ops (see docker/)"
            )
        return "serve it with a build of TensorFlow Serving that has this op"
    return {
        errors.InvalidRequest: "compare the request with the signature in client.metadata()",
        errors.LabelNotFound: f"run `{show}` to list versions",
        errors.SignatureNotFound: "client.metadata() lists the signatures",
        errors.ServableNotFound: f"run `{show}` to list versions",
        errors.Unauthenticated: "pass the token in headers={'authorization': 'Bearer ...'}",
        errors.PermissionDenied: "ask the operator of the proxy for access",
        errors.Unsupported: "the server or a proxy in front of it does not have this method",
        errors.ProtocolError: "check the address: this is not TensorFlow Serving's REST API",
        errors.Overloaded: "send fewer requests at a time (max_in_flight) or add servers",
        errors.Unavailable: "check that the server runs and that the address is right",
        errors.DeadlineExceeded: "raise timeout, or find out why the server is slow",
    }.get(kind, "see the server's log")


def no_signature(where: str, name: str | None) -> str:
    """Return the sentence for a servable without a signature."""
    text = f"{where} has no signature {name!r}"
    if name in (contract.RETRIEVE_BY_QUERY, contract.EMBED_BY_QUERY):
        return f"this version takes no history and no features: {text}"
    return text


def failure(
    kind: type[errors.ServingError],
    *,
    request: Request,
    address: str,
    status: str,
    text: str,
    show: str | None = None,
) -> errors.ServingError:
    """Return the error for an answer that reports a failure.

    Args:
        kind: Class for the status, by the transport's table.
        request: The request.
        address: The server's address.
        status: `HTTP 404` or `NOT_FOUND`.
        text: The server's whole message.
        show: Command that lists versions; `None` for that of a server.
    """
    if (other := wrong_port(address, text)) is not None:
        return other
    op = None
    if (match := _OP.search(text)) is not None:
        kind, op = errors.MissingOp, match.group(1)
    elif kind is errors.Overloaded and _ANSWER_TOO_LARGE.search(text):
        kind = errors.ProtocolError
    elif kind is errors.Overloaded and _REQUEST_TOO_LARGE.search(text):
        kind = errors.InvalidRequest
    elif issubclass(kind, errors.InvalidRequest):
        if _LABEL.search(text):
            kind = errors.LabelNotFound
        elif _SIGNATURE.search(text):
            kind = errors.SignatureNotFound
    received = f"{status}: {_shortened(text)}" if text else status
    not_found = (errors.LabelNotFound, errors.ServableNotFound)
    if kind in not_found and request.target is not None:
        what = f"no {request.target} at {address}"
    elif kind is errors.SignatureNotFound and request.target is not None:
        name = getattr(request, "signature", None)
        what = no_signature(f"{request.target} at {address}", name)
    elif op is not None:
        what = f"{request.target} at {address} needs the op {op!r}"
    else:
        what = f"{_asked(request)} at {address} failed"
    transport = "" if status.startswith("HTTP") else " --transport grpc"
    servable = f" --servable {request.target.model}" if request.target else ""
    show = show or f"shortlist status{servable} --address {address}{transport}"
    return kind(f"{what}: {received}; {_advice(kind, op, text, show)}", received=received)


def unreachable(
    *, request: Request, address: str, tls: bool, reason: str, received: str | None = None
) -> errors.ServingError:
    """Return the error for a server that did not answer, or not in the client's protocol."""
    other = wrong_port(address, reason)
    if other is not None:
        return other
    hint, advice = "", _START
    if _CLOSED.search(reason):
        # Ports with TLS close plain connections without a word.
        hint = f" ({_IF_CERTIFICATE if tls else _IF_TLS})"
    elif _NO_PORT.fullmatch(address):
        hint = f" (at port {443 if tls else 80}, as the address has none; try {_USUAL})"
    else:
        advice = next((text for sign, text in _CERTIFICATES if sign.search(reason)), advice)
    return errors.Unavailable(
        f"no answer from {address} to {_asked(request)}: {_shortened(reason)}{hint}; {advice}",
        received=received,
    )


def too_late(
    *,
    request: Request,
    address: str,
    timeout: float | None,
    reason: str = "",
    received: str | None = None,
) -> errors.DeadlineExceeded:
    """Return the error for a try that timed out, or for a call before its next try."""
    within = "in time" if timeout is None else f"within {timeout:.3g} s"
    return errors.DeadlineExceeded(
        f"{_asked(request)} at {address} did not end {within}"
        f"{reason and ': '}{reason}; raise timeout, or find out why the server is slow",
        received=received,
    )
