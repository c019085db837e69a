"""The public methods that the blocking clients share."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from shortlist.clients import contract
from shortlist.clients._calls import flows as _flows
from shortlist.clients._calls import lookups as _lookups
from shortlist.clients._calls.flows import Flow
from shortlist.clients._calls.retrieval import Exclude, Servables, retrieve
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._codecs.requests import (
    ClassifyRequest,
    MetadataRequest,
    RegressRequest,
    ReloadRequest,
    StatusRequest,
    Target,
)
from shortlist.clients._codecs.values import is_array
from shortlist.clients._engines.blocking import Engine, Transport, check_limits
from shortlist.clients.hooks import Hook
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Classification,
    Embedding,
    Filter,
    Metadata,
    ModelStatus,
    Prediction,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["BlockingClient"]

T = TypeVar("T")


class BlockingClient:
    """One interface over every transport; see `clients.RestClient` and `clients.GrpcClient`.

    All methods may be called from many threads at once. `timeout` is seconds for the
    whole call with its retries; None means the client's own, `float("inf")` for ever.
    Each may raise any `ServingError`; wrong arguments are a `ValueError` before anything
    is sent.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        model: str,
        timeout: float,
        retry: RetryPolicy,
        hooks: Sequence[Hook],
        max_in_flight: int | None,
        batch_size: int,
        parallel: int,
    ) -> None:
        check_limits(max_in_flight=max_in_flight, batch_size=batch_size, parallel=parallel)
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        self._default = Target(model=model)
        self._timeout = timeout
        self._batch_size = batch_size
        self._servables = Servables()
        self._transport = transport
        self._engine = Engine(
            transport, retry=retry, hooks=hooks, max_in_flight=max_in_flight, parallel=parallel
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives back sockets and threads; later calls are a `ValueError`. May be called twice."""
        self._engine.close()

    def retrieve(
        self,
        user_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        exclude: Exclude | None = None,
        exclude_seen: bool = False,
        filter: Filter | None = None,  # noqa: A002 - the word that users look for
        model: str | None = None,
        version: int | None = None,
        label: str | Split | None = None,
        timeout: float | None = None,
    ) -> list[Retrieval]:
        """Candidates for each user, best first.

        Large batches are split, sent side by side and put together again.

        Args:
            user_ids: `[batch]` user ids, at least one.
            k: Candidates wanted for each; there may be fewer if the corpus, the exclusions
                or the filter leave fewer.
            exclude: Candidate ids to leave out: a list for all users, or a mapping from user
                id to list.
            exclude_seen: Leave out what each user interacted with in the training data.
            filter: Which candidates may come.
            model: Model name; None means the client's own.
            version: Version number; the newest where neither it nor `label` is given.
            label: Version label, or a `Split` that gives each user one.
            timeout: See the class.

        Returns:
            `[batch]` retrievals in the order of `user_ids`.

        Raises:
            ServableNotFound: The server has no such model or version.
            LabelNotFound: No version carries the label.
            SignatureNotFound: The servable cannot exclude, filter or give as many as `k`.
        """
        split, name = (label, label.fallback) if isinstance(label, Split) else (None, label)
        target = self._target(model, version, name)
        flow = retrieve(
            user_ids,
            target=target,
            split=split,
            k=k,
            exclude=exclude,
            exclude_seen=exclude_seen,
            filter=filter,
            servables=self._servables,
            batch_size=self._batch_size,
        )
        return self._run(flow, target, timeout)

    def similar(
        self,
        candidate_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Similar]:
        """Candidates like each candidate, best first, in the order of `candidate_ids`.

        Never more than the servable's own K, which the export fixed.

        Raises:
            SignatureNotFound: The servable has no signature `similar`.
        """
        target = self._target(model, version, label)
        flow = _lookups.similar(
            candidate_ids,
            k=k,
            target=target,
            signatures=self._servables.signatures,
            batch_size=self._batch_size,
        )
        return self._run(flow, target, timeout)

    def embed(
        self,
        user_ids: Sequence[str],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Embedding]:
        """The query tower's embedding of each user, in the order of `user_ids`.

        Raises:
            SignatureNotFound: The servable has no signature `embed`.
        """
        target = self._target(model, version, label)
        flow = _lookups.embed(user_ids, target=target, batch_size=self._batch_size)
        return self._run(flow, target, timeout)

    def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """The predicted rating of each `(user_id, candidate_id)` pair, in their order.

        Raises:
            SignatureNotFound: The servable has no signature `rate`.
        """
        target = self._target(model, version, label)
        flow = _lookups.rate(pairs, target=target, batch_size=self._batch_size)
        return self._run(flow, target, timeout)

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        signature: str = contract.SERVING_DEFAULT,
        outputs: Sequence[str] = (),
        arrays: bool | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Runs any signature of any servable.

        The first call to a servable also asks for its metadata, to give plain Python
        numbers the types that the signature wants.

        Args:
            inputs: By input name: a scalar, nested lists, or a NumPy array.
            signature: Signature name.
            outputs: Which outputs to return; all where empty.
            arrays: Return NumPy arrays; None means if any input is one.
            model: Model name; None means the client's own.
            version: As in `retrieve`.
            label: As in `retrieve`.
            timeout: See the class.

        Raises:
            ValueError: A value does not fit the signature.
            SignatureNotFound: The servable has no such signature.
        """
        target = self._target(model, version, label)
        if arrays is None:
            arrays = any(is_array(value) for value in inputs.values())
        flow = _flows.predict(
            inputs,
            target=target,
            signature=signature,
            outputs=tuple(outputs),
            arrays=arrays,
            cache=self._servables.signatures,
        )
        return self._run(flow, target, timeout)

    def classify(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Classification]:
        """Classes of each example, by a signature of the method `tensorflow/serving/classify`.

        Args:
            examples: Features by name: a number, string or bytes, or a list of such.
            context: Features that all examples share.
            signature: Signature name; None means the servable's default.
            model: Model name; None means the client's own.
            version: As in `retrieve`.
            label: As in `retrieve`.
            timeout: See the class.
        """
        target = self._target(model, version, label)
        request = ClassifyRequest(
            target=target, signature=signature, examples=list(examples), context=context
        )
        found: list[Classification] = self._run(_flows.single(request), target, timeout)
        return found

    def regress(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """The value of each example, by a signature of the method `tensorflow/serving/regress`.

        Takes what `classify` takes.
        """
        target = self._target(model, version, label)
        request = RegressRequest(
            target=target, signature=signature, examples=list(examples), context=context
        )
        found: list[float] = self._run(_flows.single(request), target, timeout)
        return found

    def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """Signatures of a servable, and which version that is."""
        target = self._target(model, version, label)
        found: Metadata = self._run(_flows.single(MetadataRequest(target=target)), target, timeout)
        return found

    def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """States of a model's versions, or of one of them.

        The server ignores labels here, so there is no `label`.
        """
        target = self._target(model, version, None)
        found: ModelStatus = self._run(_flows.single(StatusRequest(target=target)), target, timeout)
        return found

    def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """Polls until the servable is AVAILABLE, whether or not the server is up yet.

        Without version or label any AVAILABLE version will do.

        Raises:
            LoadFailed: The server tried to load the version and gave up.
            DeadlineExceeded: `timeout` seconds were not enough; the message has the last
                state seen.
        """
        target = self._target(model, version, label)
        flow = _flows.wait(target, timeout=timeout, poll_interval=poll_interval)
        return self._engine.run(flow, timeout + 1.0)

    def reload_config(self, config: Any, *, timeout: float | None = None) -> None:
        """Replaces the server's whole configuration; gRPC only, and never tried twice.

        A model that `config` leaves out is unloaded. The server waits for new models, not
        for new versions: follow with `wait_until_available`.

        Args:
            config: A `shortlist.clients.wire.messages.ModelServerConfig`, or its text form.
            timeout: See the class.

        Raises:
            ValueError: The text is no `ModelServerConfig`.
            Unsupported: This client speaks REST, which has no such call.
            InvalidRequest: The server refused it, for instance for a label on a version
                that is not AVAILABLE.
        """
        from shortlist.clients._codecs.protobuf import server_config

        request = ReloadRequest(config=server_config(config))
        self._run(_flows.single(request), None, timeout)

    def _target(self, model: str | None, version: int | None, label: str | None) -> Target:
        if model is None and version is None and label is None:
            return self._default
        name = self._default.model if model is None else model
        return Target(model=name, version=version, label=label)

    def _run(self, flow: Flow[T], target: Target | None, timeout: float | None) -> T:
        limit = self._timeout if timeout is None else timeout
        return self._engine.run(flow, limit, target)
