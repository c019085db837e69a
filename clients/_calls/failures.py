"""Turns what a transport received into an error of the tree, with what to do about it."""

import re
from typing import Final

from shortlist.clients import errors
from shortlist.clients._codecs.requests import Request, Target

__all__ = ["failure", "unreachable"]

_LABEL: Final = re.compile(r"Unrecognized servable version label")
_SIGNATURE: Final = re.compile(
    r"Serving signature (?:key|name): ?\"|Serving signature key \"|not found in signature def"
)
_OP: Final = re.compile(r"Op type not registered '([^']+)'")
_MAX_RECEIVED: Final = 500  # characters of the other side's text that an error repeats


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_RECEIVED else text[: _MAX_RECEIVED - 1] + "…"


def _advice(
    kind: type[errors.ServingError], target: Target | None, op: str | None, text: str
) -> str:
    if "Conversion of JSON Value" in text:
        return "the server's REST API takes no inputs of this type; use clients.GrpcClient"
    if op is not None:
        if op.startswith("Scann>"):
            return (
                "this server lacks ScaNN's ops; query the servable with index brute_force or ivf, "
                "or serve it with `shortlist serve --server embedded` or an image that "
                "holds the ScaNN ops (see docker/)"
            )
        return "serve it with a build of TensorFlow Serving that has this op"
    status = f"shortlist status --servable {target.model}" if target else "shortlist status"
    return {
        errors.InvalidRequest: "compare the inputs with what client.metadata() lists",
        errors.LabelNotFound: f"run `{status}` to list versions",
        errors.SignatureNotFound: "client.metadata() lists the signatures",
        errors.ServableNotFound: f"run `{status}` to list versions",
        errors.Unauthenticated: "pass the token in headers={'authorization': 'Bearer ...'}",
        errors.PermissionDenied: "ask whoever runs the proxy for access",
        errors.Unsupported: "the server or a proxy before it does not have this method",
        errors.Overloaded: "send fewer requests at a time (max_in_flight) or add servers",
        errors.Unavailable: "check that the server runs and that the address is right",
        errors.DeadlineExceeded: "raise timeout, or find out why the server is slow",
    }.get(kind, "see the server's log")


def failure(
    kind: type[errors.ServingError],
    *,
    request: Request,
    address: str,
    status: str,
    text: str,
) -> errors.ServingError:
    """The error for an answer that says no.

    Args:
        kind: Class by the table of the transport.
        request: What was asked.
        address: Whom.
        status: `HTTP 404` or `NOT_FOUND`.
        text: What the server says, in full.
    """
    op = None
    if (match := _OP.search(text)) is not None:
        kind, op = errors.MissingOp, match.group(1)
    elif issubclass(kind, errors.InvalidRequest):
        if _LABEL.search(text):
            kind = errors.LabelNotFound
        elif _SIGNATURE.search(text):
            kind = errors.SignatureNotFound
    received = f"{status}: {_shortened(text)}" if text else status
    asked = f"{request.operation} of {request.target}" if request.target else request.operation
    if kind is errors.LabelNotFound and request.target is not None:
        what = f"no {request.target} at {address}"
    elif kind is errors.SignatureNotFound and request.target is not None:
        name = getattr(request, "signature", None)
        what = f"{request.target} at {address} has no signature {name!r}"
    elif kind is errors.ServableNotFound and request.target is not None:
        what = f"no {request.target} at {address}"
    elif op is not None:
        what = f"{request.target} at {address} needs the op {op!r}"
    else:
        what = f"{asked} at {address} failed"
    return kind(f"{what}: {received}; {_advice(kind, request.target, op, text)}", received=received)


def unreachable(
    *, request: Request, address: str, reason: str, received: str | None = None
) -> errors.Unavailable:
    """The error for a server that did not answer."""
    asked = f"{request.operation} of {request.target}" if request.target else request.operation
    return errors.Unavailable(
        f"no answer from {address} to {asked}: {_shortened(reason)}; check that the server runs "
        "there (it opens its ports only once every model is AVAILABLE), or start one: "
        "shortlist serve --repository DIR",
        received=received,
    )
