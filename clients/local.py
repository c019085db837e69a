"""Servables that run in the caller's own process, asked as the clients ask servers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shortlist.clients import contract
from shortlist.clients._arguments import texts
from shortlist.clients._calls.call import Call, Caller
from shortlist.clients._calls.failures import failure, too_late
from shortlist.clients._calls.interfaces import Ways, missing
from shortlist.clients._calls.queries import Queries, checked_queries
from shortlist.clients._calls.rankings import checked_ids, checked_k
from shortlist.clients._calls.retrieval import choose_way, shared_options
from shortlist.clients._calls.retry import Deadline
from shortlist.clients._client import RetrievalClient
from shortlist.clients._codecs.protobuf import message_of, method_of, reader_of, signature_of
from shortlist.clients._codecs.requests import PredictRequest, Request, Target
from shortlist.clients.errors import ServerError, error_class_for_code
from shortlist.clients.interface import RetrievalInterface, find_interface
from shortlist.clients.split import Split
from shortlist.clients.types import Features, Filter, Metadata
from shortlist.clients.wire import messages
from shortlist.clients.wire.methods import Method

__all__ = ["InProcessClient", "LocalRequest", "LocalServable", "Refused", "RetrievalOptions"]


class Refused(Exception):  # noqa: N818 - one of several answers
    """The answer to a request that failed.

    Attributes:
        code: Name of the gRPC status, such as `NOT_FOUND`.
        text: The whole message.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class InProcessClient(RetrievalClient):
    """Client whose messages a function answers, not a server.

    Args:
        place: Where the models are, for errors and hooks.
        show: Command that lists their versions.
        answer: Answers a message within some seconds, or without limit; raises `Refused`.
        prepare: Called before a call's time starts, with what the call names.
        caller: Keyword arguments of `Caller`.
    """

    def __init__(
        self,
        place: str,
        *,
        show: str,
        answer: Callable[[Method, Any, float | None], Any],
        prepare: Callable[[str, int | None, Sequence[str]], None],
        caller: Mapping[str, Any],
    ) -> None:
        super().__init__(
            _Transport(place, show, answer), _Preparing([place], "local", prepare, **caller)
        )


class _Preparing(Caller):
    def __init__(
        self,
        addresses: Sequence[str],
        transport: str,
        prepare: Callable[[str, int | None, Sequence[str]], None],
        **options: Any,
    ) -> None:
        super().__init__(addresses, transport, **options)
        self._prepare = prepare

    def call(
        self,
        model: str | None,
        version: int | None,
        label: str | Split | None,
        timeout: float | None,
    ) -> Call:
        call = super().call(model, version, label, timeout)
        target, split = call.target, call.split
        labels = [target.label] if target.label is not None else []
        if split is not None:
            labels = [*split.shares, *split.shadow]
        self._prepare(target.model, target.version, labels)
        call.deadline = Deadline(call.deadline.timeout)
        return call


class _Transport:
    def __init__(
        self, place: str, show: str, answer: Callable[[Method, Any, float | None], Any]
    ) -> None:
        self._place = place
        self._show = show
        self._answer = answer

    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        try:
            reply = self._answer(method_of(request), message_of(request), timeout)
        except Refused as exc:
            if exc.code == "DEADLINE_EXCEEDED":
                received = str(exc)
                raise too_late(
                    request=request, address=self._place, timeout=timeout, received=received
                ) from exc
            raise failure(
                error_class_for_code(exc.code),
                request=request,
                address=self._place,
                status=exc.code,
                text=exc.text,
                show=self._show,
            ) from exc
        return reader_of(request, reply)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOptions:
    """What all queries of a retrieval share, as arguments of `RetrievalClient.retrieve`.

    Attributes:
        k: Candidates per query; `None` for `DEFAULT_K`, or as many as the servable answers.
        exclude: Candidate ids to leave out.
        exclude_history: Leave out the candidates in the history.
        exclude_seen: Leave out candidates that the user interacted with.
        filter: Conditions on the attributes of candidates.
    """

    k: int | None = None
    exclude: Sequence[str] = ()
    exclude_history: bool = True
    exclude_seen: bool = False
    filter: Filter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRequest:
    """Inputs of a signature, and where its answer is.

    Attributes:
        interface: Signature, and its outputs with candidate ids and scores.
        inputs: Value and name of the data type (`DT_STRING`) by input name; rows in lists.
        k: Candidates per row to use of the answer.
        may_widen: The request is to be made again by `wider` if the answer has fewer than `k`.
    """

    interface: RetrievalInterface
    inputs: Mapping[str, tuple[Any, str | None]]
    k: int
    may_widen: bool = False


class LocalServable:
    """Makes the requests for one servable; safe to use from several threads.

    Args:
        model: Model name.
        version: Version number.
        signatures: Its signatures by name.
        tensors: Arguments of `find_interface`, for signatures that leave them open.
        options: What all queries share.

    Raises:
        ValueError: An option has the wrong type or is out of range.
    """

    def __init__(
        self,
        model: str,
        version: int,
        signatures: Mapping[str, messages.SignatureDef],
        *,
        tensors: Mapping[str, str] | None = None,
        options: RetrievalOptions,
    ) -> None:
        self._target = Target(model=model, version=version)
        self._tensors = tensors
        self._k = None if options.k is None else checked_k(options.k)
        self._exclude = texts("exclude", options.exclude)
        self._options = shared_options(
            options.exclude_history, options.exclude_seen, options.filter
        )
        self.metadata = Metadata(
            model=model,
            version=version,
            signatures={name: signature_of(value) for name, value in signatures.items()},
        )
        self._ways: Ways | None = None
        self._narrow: int | None = None

    @property
    def interface(self) -> RetrievalInterface:
        """The signature that retrieves candidates for a user id.

        Raises:
            SignatureNotFound: There is none, or several could.
            NoInterfaceError: The tensors do not exist.
        """
        return self._all_ways().first.interface

    def retrieve(
        self,
        user_ids: Sequence[str],
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
    ) -> LocalRequest:
        """Return the request for some users.

        Raises:
            ValueError: A value has the wrong type or size.
            SignatureNotFound: The signatures cannot do what is asked.
        """
        queries = checked_queries(
            user_ids,
            history=history,
            history_ages=history_ages,
            history_weights=history_weights,
            features=features,
        )
        return self._request(queries)

    def wider(self, width: int) -> None:
        """Note how many candidates a signature answers, which its shape did not tell."""
        self._narrow = width

    def similar(self, candidate_ids: Sequence[str]) -> LocalRequest:
        """Return the request for candidates that are similar to some.

        Raises:
            ValueError: A candidate id is not a string.
            SignatureNotFound: The servable does not have the signature.
        """
        signatures = self.metadata.signatures
        if contract.SIMILAR not in signatures:
            raise missing(self._target, signatures, contract.SIMILAR)
        k = self._k or contract.DEFAULT_K
        inputs: dict[str, tuple[Any, str | None]] = {}
        inputs[contract.CANDIDATE_ID] = (checked_ids("candidate_ids", candidate_ids), "DT_STRING")
        if contract.K in signatures[contract.SIMILAR].inputs:
            inputs[contract.K] = (k, "DT_INT32")
        interface = RetrievalInterface(signature=contract.SIMILAR, query=contract.CANDIDATE_ID)
        return LocalRequest(interface=interface, inputs=inputs, k=k)

    def not_a_number(self, query: str) -> ServerError:
        """Return the error for a score that is NaN."""
        return ServerError(
            f"{self._target} answered NaN as a score for {query!r}: its model or index is broken; "
            "run `shortlist verify` on it"
        )

    def _all_ways(self) -> Ways:
        if self._ways is None:
            given = None
            if self._tensors:
                given = find_interface(self.metadata.signatures, **self._tensors)
            self._ways = Ways(self._target, self.metadata, given)
        return self._ways

    def _request(self, queries: Queries) -> LocalRequest:
        options = dict(self._options)
        if queries.history is None:
            options.pop(contract.EXCLUDE_HISTORY, None)
        if self._exclude:
            queries.exclude = [self._exclude] * len(queries.users)
        way, wider, asked = choose_way(self._all_ways(), queries, self._k, options, self._narrow)
        request = way.request(self._target, queries, asked)
        return LocalRequest(
            interface=way.interface,
            inputs=_values(request),
            k=self._k or contract.DEFAULT_K,
            may_widen=wider is not None,
        )


def _values(request: PredictRequest) -> dict[str, tuple[Any, str | None]]:
    return {name: (value.value, value.dtype) for name, value in request.inputs.items()}
