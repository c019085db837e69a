"""The methods that `RestClient`, `GrpcClient` and `LocalClient` share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from shortlist.clients import contract
from shortlist.clients._arguments import seconds
from shortlist.clients._calls import lookups, management
from shortlist.clients._calls import predict as _predict
from shortlist.clients._calls.call import Call, Caller, Flow
from shortlist.clients._calls.explanations import explained
from shortlist.clients._calls.retrieval import retrieve
from shortlist.clients._engines.blocking import Engine, Transport
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Classification,
    Embedding,
    Exclude,
    Features,
    Filter,
    Metadata,
    ModelStatus,
    Prediction,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["RetrievalClient"]

P = ParamSpec("P")
T = TypeVar("T")


class RetrievalClient:
    """Base of `RestClient`, `GrpcClient` and `LocalClient`, for code that takes any of them.

    All methods may be called from several threads at once. `timeout` is seconds for the whole
    call with its retries: `None` for the client's default, `float("inf")` for no limit.
    Every method may raise any `ServingError`; wrong arguments raise `ValueError` before anything
    is sent.
    """

    def __init__(self, transport: Transport, caller: Caller) -> None:
        self._caller = caller
        self._engine = Engine(transport, parallel=caller.limits.parallel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Later calls raise `ValueError`. May be called twice."""
        self._caller.closed = True
        self._engine.close()

    def retrieve(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
        k: int | None = None,
        exclude: Exclude | None = None,
        exclude_history: bool = True,
        exclude_seen: bool = False,
        filter: Filter | None = None,  # noqa: A002 - the word that users look for
        model: str | None = None,
        version: int | None = None,
        label: str | Split | None = None,
        timeout: float | None = None,
    ) -> list[Retrieval]:
        """Return candidates for each user, best first.

        Large batches are split, sent concurrently and put together again.

        With a history or features, an unknown user gets candidates of its own, if the model was
        exported to take them. Candidate ids in the history that the version does not know are
        skipped; `Retrieval.known_history` counts the others. `Retrieval.known_features` counts
        the features that it knows.

        A model that Shortlist did not export, such as a saved TFRS index, answers too: if it
        refuses the usual request, the client looks its tensors up, once. Features are its other
        inputs by name; rows of strings are padded with empty ones.

        Args:
            user_ids: `[batch]` user ids, at least one. With `history` or `features` they are
                optional: without them, or with an empty id, a row is a user without id.
            history: `[batch]` lists of the candidate ids of each user's last events, oldest
                first; a list may be empty. The events follow those that the version keeps of a
                known user.
            history_ages: `[batch]` lists of the seconds from each event to the request; `None`
                for an unknown age.
            history_weights: `[batch]` lists of the weight of each event, 1e-6 to 1e6; all 1 if
                not set.
            features: `[batch]` mappings from the name of a user or context feature to a string,
                a number, or several of them.
            k: Maximum number of candidates per user; there may be fewer in the corpus, or left
                by the exclusions and the filter. `None` for 10, or fewer if the model was saved
                to answer fewer.
            exclude: Candidate ids to leave out: a list for all users, or a mapping from user
                id to list.
            exclude_history: Leave out the candidates in `history`.
            exclude_seen: Leave out what each user interacted with in the training data.
            filter: Conditions on the attributes of the candidates.
            model: Model name; `None` for the client's default.
            version: Version number; the newest version if neither `version` nor `label` is set.
            label: Version label, or a `Split` that gives each user one.
            timeout: Seconds for the whole call; `None` for the client's default.

        Returns:
            `[batch]` retrievals in the order of the rows.

        Raises:
            ServableNotFound: The server has no such model or version.
            LabelNotFound: No version has the label.
            SignatureNotFound: The servable does not support histories and features, exclusions,
                filters or this `k`, or does not retrieve candidates.
            ValueError: An argument is wrong, or does not fit the inputs of the model.
        """
        return self._run(
            retrieve,
            self._caller.call(model, version, label, timeout),
            user_ids,
            history=history,
            history_ages=history_ages,
            history_weights=history_weights,
            features=features,
            k=k,
            exclude=exclude,
            exclude_history=exclude_history,
            exclude_seen=exclude_seen,
            filter=filter,
        )

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
        """Return the most similar candidates of each candidate, best first.

        The result has the order of `candidate_ids`. Servables may limit `k` at export.

        Raises:
            SignatureNotFound: The servable has no signature `similar`.
        """
        return self._run(
            lookups.similar, self._caller.call(model, version, label, timeout), candidate_ids, k=k
        )

    def embed(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Embedding]:
        """Return the query tower's embedding of each user, in the order of the rows.

        User ids, histories and features are those of `retrieve`.

        Raises:
            SignatureNotFound: The servable has no signature `embed`, or does not support
                histories and features.
        """
        return self._run(
            lookups.embed,
            self._caller.call(model, version, label, timeout),
            user_ids,
            history=history,
            history_ages=history_ages,
            history_weights=history_weights,
            features=features,
        )

    def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """Return the predicted rating of each `(user_id, candidate_id)` pair, in order.

        Raises:
            SignatureNotFound: The servable has no signature `rate`.
        """
        return self._run(lookups.rate, self._caller.call(model, version, label, timeout), pairs)

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
        """Run any signature of any servable.

        The first call to a servable also fetches its metadata, to give plain Python numbers
        the element types of the signature.

        Args:
            inputs: Scalars, nested lists or NumPy arrays by input name.
            signature: Signature name.
            outputs: Names of the outputs to return; all if empty.
            arrays: Return NumPy arrays; `None` if any input is one.
            model: Model name; `None` for the client's default.
            version: Version number, as in `retrieve`.
            label: Version label.
            timeout: Seconds for the whole call; `None` for the client's default.

        Raises:
            ValueError: A value does not fit the signature.
            SignatureNotFound: The servable has no such signature.
        """
        return self._run(
            _predict.predict,
            self._caller.call(model, version, label, timeout),
            inputs,
            signature=signature,
            outputs=outputs,
            arrays=arrays,
        )

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
        """Return the classes of each example, by a signature for `tensorflow/serving/classify`.

        Args:
            examples: Features by name: a number, string or bytes, or a list of them.
            context: Features that all examples share.
            signature: Signature name; `None` for the servable's default.
            model: Model name; `None` for the client's default.
            version: Version number, as in `retrieve`.
            label: Version label.
            timeout: Seconds for the whole call; `None` for the client's default.
        """
        return self._run(
            _predict.classify,
            self._caller.call(model, version, label, timeout),
            examples,
            context=context,
            signature=signature,
        )

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
        """Return the value of each example, by a signature for `tensorflow/serving/regress`.

        The arguments are those of `classify`.
        """
        return self._run(
            _predict.regress,
            self._caller.call(model, version, label, timeout),
            examples,
            context=context,
            signature=signature,
        )

    def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """Return the signatures of a servable and its version."""
        return self._run(management.metadata, self._caller.call(model, version, label, timeout))

    def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """Return the states of a model's versions, or of one version.

        The server ignores labels here, so there is no `label`.
        """
        return self._run(management.status, self._caller.call(model, version, None, timeout))

    def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """Poll until the servable is AVAILABLE, even if the server is not up yet.

        Without version or label, any AVAILABLE version is enough.

        Raises:
            LoadFailed: The server tried to load the version and gave up.
            DeadlineExceeded: `timeout` seconds passed; the message has the last state seen.
        """
        return self._run(
            management.wait,
            self._caller.call(model, version, label, seconds("timeout", timeout) + 1.0),
            timeout=timeout,
            poll_interval=poll_interval,
        )

    def reload_config(self, config: Any, *, timeout: float | None = None) -> None:
        """Replace the server's whole configuration; gRPC only, and never retried.

        The server unloads models that `config` leaves out. It waits for new models, but not for
        new versions: call `wait_until_available` next.

        Args:
            config: A `shortlist.clients.wire.messages.ModelServerConfig`, or its text form.
            timeout: Seconds for the whole call; `None` for the client's default.

        Raises:
            ValueError: The text is not a valid `ModelServerConfig`.
            Unsupported: The client uses REST, which has no such call, or no server.
            InvalidRequest: The server refused the configuration, for instance because of a label
                on a version that is not AVAILABLE.
        """
        self._run(management.reload_config, self._caller.call(None, None, None, timeout), config)

    def _run(
        self,
        flow: Callable[Concatenate[Call, P], Flow[T]],
        call: Call,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return self._engine.run(explained(call, flow(call, *args, **kwargs)))
