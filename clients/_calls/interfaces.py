"""Servables that are asked by other inputs and outputs than the contract's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from shortlist.clients import contract, errors
from shortlist.clients._calls.failures import no_signature
from shortlist.clients._calls.features import feature_inputs, is_column, user_ids
from shortlist.clients._calls.queries import Queries, inputs_for
from shortlist.clients._codecs.requests import Input, PredictRequest, Target
from shortlist.clients.interface import NoInterfaceError, RetrievalInterface, find_interface
from shortlist.clients.types import Metadata, Signature

__all__ = ["USUAL", "Way", "Ways", "missing"]

USUAL: Final = RetrievalInterface()  # the contract's

# Inputs of RETRIEVE besides the query: type, rank, and what a servable without them cannot do.
_OPTIONS: Final[Mapping[str, tuple[str, int, str]]] = {
    contract.K: ("DT_INT32", 0, "choose the number of candidates"),
    contract.EXCLUDE: ("DT_STRING", 2, "exclude candidates"),
    contract.EXCLUDE_SEEN: ("DT_BOOL", 0, "exclude seen candidates"),
    contract.FILTER_ANY: ("DT_STRING", 1, "filter candidates"),
    contract.FILTER_ALL: ("DT_STRING", 1, "filter candidates"),
    contract.FILTER_MIN: ("DT_STRING", 1, "filter candidates"),
    contract.FILTER_MAX: ("DT_STRING", 1, "filter candidates"),
}
_BY_QUERY: Final = (contract.RETRIEVE_BY_QUERY, contract.EMBED_BY_QUERY)
_ABILITIES: Final = {
    contract.SIMILAR: "cannot find similar candidates",
    contract.EMBED: "cannot embed users",
    contract.RATE: "cannot predict ratings",
}
_PUBLISH: Final = "publish it with `shortlist index` (or export it with Shortlist) for that"
_EXPORT: Final = "export a model with Shortlist for that"


def _advice(exc: NoInterfaceError, signatures: Iterable[str]) -> str:
    if exc.ambiguous:
        return (
            "choose by --signature, --input, --ids and --scores, or in Python by the client's "
            "interface=RetrievalInterface(…)"
        )
    if not _public(signatures):
        return "call the index once before saving it, or pass signatures= to tf.saved_model.save"
    return (
        "run any signature by `shortlist predict`; `shortlist index` makes a retrieval model of a "
        "query tower and candidates"
    )


def missing(
    target: object, signatures: Iterable[str], signature: str, *, what: str = ""
) -> errors.SignatureNotFound:
    """Return the error for a servable without a signature.

    Args:
        target: The servable.
        signatures: Names of its signatures.
        signature: Name of the missing one.
        what: Consequence for the call; by default what the servable cannot do at all.
    """
    names = _public(signatures)
    listed = ", ".join(names)
    what = what or _ABILITIES.get(signature, "")
    if contract.RETRIEVE in names or not what:
        advice = "; export the model again" if what else ""
        if signature in _BY_QUERY:
            advice += ", or ask for less (no history, no features)"
        text = no_signature(str(target), signature)
        return errors.SignatureNotFound(f"{text}{advice}; it has: {listed or 'none'}")
    has = f"one signature, {listed}," if len(names) == 1 else f"the signatures {listed}"
    cure = _EXPORT if signature in (contract.RATE, *_BY_QUERY) else _PUBLISH
    return errors.SignatureNotFound(f"{target} has {has} and {what}; {cure}")


def _public(signatures: Iterable[str]) -> list[str]:
    """Return the names in order; those with two underscores are TensorFlow's internal ones."""
    return sorted(name for name in signatures if not name.startswith("__"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A signature, and how a request to it is made.

    Attributes:
        interface: Tensors of the signature.
        spec: The signature.
        options: Inputs that mean what the contract says.
        features: Inputs that come as features.
    """

    interface: RetrievalInterface
    spec: Signature
    options: frozenset[str]
    features: tuple[str, ...] = ()

    @property
    def width(self) -> int | None:
        """Number of candidates in an answer; `None` if a request chooses it, or if unknown."""
        shape = self.spec.outputs[self.interface.ids].shape
        return None if contract.K in self.options or shape is None else shape[1]

    def lacks(self, asked: Mapping[str, object]) -> str:
        """Return what the signature cannot do of the options asked for; empty if nothing."""
        if self.options.issuperset(_OPTIONS):
            return ""
        lacks = [
            what
            for name, (_, _, what) in _OPTIONS.items()
            if asked.get(name) is not None and name not in self.options
        ]
        return f"cannot {' or '.join(dict.fromkeys(lacks))}" if lacks else ""

    def request(
        self,
        target: Target,
        queries: Queries,
        options: Mapping[str, Input | None],
        *,
        operation: str = "retrieve",
        only_output: str | None = None,
    ) -> PredictRequest:
        """Return the request for some queries.

        Raises:
            ValueError: A user id or a feature does not fit.
            Unsupported: The signature lacks an input that is asked for.
        """
        query, name = self.interface.query, self.interface.signature
        inputs = {query: user_ids(target, queries.users, query, self.spec.inputs[query])}
        asked = {**queries.inputs(), **options}
        del asked[contract.USER_ID]
        if self.features:
            del asked[contract.FEATURES]
            rows = queries.given or [{}] * len(queries.users)
            specs = {feature: self.spec.inputs[feature] for feature in self.features}
            inputs |= feature_inputs(target, rows, specs)
        size = len(queries.users)
        inputs |= inputs_for(asked, size, signature=name, known=self.options, target=target)
        return PredictRequest(
            target=target,
            signature=name,
            inputs=inputs,
            operation=operation,
            only_output=only_output,
            user_input=query,
        )


def _is_option(spec: Signature, name: str) -> bool:
    if name not in _OPTIONS:
        return False
    (dtype, rank, _), tensor = _OPTIONS[name], spec.inputs[name]
    return tensor.dtype == dtype and (tensor.shape is None or len(tensor.shape) == rank)


class Ways:
    """The ways to ask a servable, according to its metadata.

    Attributes:
        usual: True if it is asked for candidates as the contract says.
    """

    __slots__ = ("_interface", "_known", "_metadata", "_target", "usual")

    def __init__(
        self, target: Target, metadata: Metadata, given: RetrievalInterface | None
    ) -> None:
        """Find the tensors by which the servable retrieves, among those given if there are any.

        Raises:
            SignatureNotFound: There are none, or several tensors could play one part.
        """
        names = {}
        if given is not None:
            names = {part: getattr(given, part) for part in ("signature", "query", "ids", "scores")}
        try:
            found = find_interface(metadata.signatures, **names)
        except NoInterfaceError as exc:
            advice = "mend the client's interface" if given else _advice(exc, metadata.signatures)
            raise errors.SignatureNotFound(f"{target} cannot be queried: {exc}; {advice}") from exc
        query = metadata.signatures[found.signature].inputs[found.query]
        self.usual = (
            given is None and found == USUAL and query.dtype == "DT_STRING" and not is_column(query)
        )
        self._target, self._metadata, self._interface = target, metadata, found
        self._known: dict[str, Way | None] = {}

    @property
    def first(self) -> Way:
        """The signature that retrieves candidates."""
        way = self.to(self._interface.signature)
        if way is None:
            raise AssertionError(self._interface)
        return way

    @property
    def wider(self) -> Way | None:
        """The signature that does the same with all options; `None` if there is none."""
        if self._interface.signature != contract.SERVING_DEFAULT:
            return None
        return self.to(contract.RETRIEVE)

    def to(self, signature: str) -> Way | None:
        """Return the way to ask a signature with the same query; `None` if there is none."""
        if signature not in self._known:
            self._known[signature] = self._way(signature)
        return self._known[signature]

    def _way(self, signature: str) -> Way | None:
        by_query = signature in _BY_QUERY  # exported servables alone have these
        interface = replace(USUAL if by_query else self._interface, signature=signature)
        spec = self._metadata.signatures.get(signature)
        if spec is None or interface.query not in spec.inputs:
            return None
        others = set(spec.inputs) - {interface.query}
        options = others if by_query else {name for name in others if _is_option(spec, name)}
        return Way(
            interface=interface,
            spec=spec,
            options=frozenset(options),
            features=tuple(sorted(others - options)),
        )

    def by_query(self, queries: Queries, way: Way, signature: str) -> Way:
        """Return the way to ask a signature with histories and features, if queries need it.

        Args:
            queries: The queries.
            way: The way without, which may take features as inputs.
            signature: Name of the signature with them.

        Raises:
            SignatureNotFound: The servable does not have it.
        """
        if queries.history is None and (queries.features is None or way.features):
            return way
        found = self.to(signature)
        if found is None and way.features:
            inputs = ", ".join((way.interface.query, *way.features))
            raise errors.SignatureNotFound(
                f"{self._target} cannot take histories; its query tower has the inputs {inputs}"
            )
        if found is None:
            lacks = "cannot take features" if queries.history is None else "cannot take histories"
            raise self.missing(signature, lacks)
        return found

    def missing(self, signature: str, what: str = "") -> errors.SignatureNotFound:
        """Return the error for a signature that the servable does not have; see `missing`."""
        return missing(self._target, self._metadata.signatures, signature, what=what)
