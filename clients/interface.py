"""Which tensors of a signature hold the query, the candidate ids and their scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shortlist.clients import contract
from shortlist.clients.types import Signature, TensorSpec

__all__ = ["NoInterfaceError", "RetrievalInterface", "find_interface"]

_INTEGERS: Final = frozenset({"DT_INT32", "DT_INT64"})
_FLOATS: Final = frozenset({"DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16"})


class NoInterfaceError(ValueError):
    """No signature is known to retrieve candidates, or several tensors could play one part.

    Attributes:
        ambiguous: True if names would help: several signatures or tensors could be meant.
    """

    def __init__(self, message: str, *, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalInterface:
    """The tensors by which a signature retrieves candidates, whoever exported it.

    The defaults are those of servables that Shortlist exports.

    Attributes:
        signature: Signature name.
        query: Input with one user id per row: string, int32 or int64 `[batch]` or `[batch, 1]`.
        ids: Output with candidate ids, string or integer `[batch, k]`, best first.
        scores: Output with their scores, float `[batch, k]`.
        others: Names of the other inputs, all of which a request must have.
    """

    signature: str = contract.SERVING_DEFAULT
    query: str = contract.USER_ID
    ids: str = contract.CANDIDATE_IDS
    scores: str = contract.SCORES
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        inputs = ", ".join((self.query, *self.others))
        return f"{self.signature}: {inputs} -> {self.ids}, {self.scores}"


def find_interface(
    signatures: Mapping[str, Signature],
    *,
    signature: str | None = None,
    query: str | None = None,
    ids: str | None = None,
    scores: str | None = None,
) -> RetrievalInterface:
    """Find the signature that retrieves candidates and the parts of its tensors.

    A query is a string or whole number per row, an answer a matrix of ids and one of scores.
    `serving_default` comes first, else the one signature with such tensors is taken. Names of the
    contract come before types, and strings before whole numbers.

    Args:
        signatures: Signatures by name.
        signature: Name of the signature; `None` to find it.
        query: Name of the input with user ids; `None` to find it.
        ids: Name of the output with candidate ids; `None` to find it.
        scores: Name of the output with scores; `None` to find it.

    Raises:
        NoInterfaceError: There is none, several fit, or a name does not exist; the message says
            which tensors there are.
    """
    # Names with two underscores are TensorFlow's internal ones.
    public = [name for name in signatures if not name.startswith("__")]
    if signature is not None:
        _require(signature, public, "signature")
        return _of(signature, signatures[signature], query, ids, scores)
    found: dict[str, RetrievalInterface] = {}
    problems: list[NoInterfaceError] = []
    first = contract.SERVING_DEFAULT
    for name in sorted(public, key=lambda name: (name != first, name)):
        try:
            found[name] = _of(name, signatures[name], query, ids, scores)
        except NoInterfaceError as exc:
            problems.append(exc)
        if first in found:
            return found[first]
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        names = ", ".join(found)
        raise NoInterfaceError(f"several signatures retrieve candidates: {names}", ambiguous=True)
    if not public:
        raise NoInterfaceError("there is no signature")
    raise NoInterfaceError(
        "; ".join(map(str, problems)), ambiguous=any(exc.ambiguous for exc in problems)
    )


def _of(
    name: str, signature: Signature, query: str | None, ids: str | None, scores: str | None
) -> RetrievalInterface:
    inputs, outputs = signature.inputs, signature.outputs
    texts = [key for key, spec in inputs.items() if spec.dtype == "DT_STRING" and _is_query(spec)]
    numbers = [key for key, spec in inputs.items() if spec.dtype in _INTEGERS and _is_query(spec)]
    matrices = {key: spec.dtype for key, spec in outputs.items() if _is_matrix(spec)}
    strings = [key for key, dtype in matrices.items() if dtype == "DT_STRING"]
    integers = [key for key, dtype in matrices.items() if dtype in _INTEGERS]
    floats = [key for key, dtype in matrices.items() if dtype in _FLOATS]

    def part(
        what: str,
        given: str | None,
        usual: str,
        all_names: Iterable[str],
        *choices: list[str],
        kind: str,
    ) -> str:
        if given is not None:
            _require(given, all_names, f"{what} of signature {name!r}")
            return given
        for fitting in choices:
            if usual in fitting:
                return usual
        fitting = next((fitting for fitting in choices if fitting), [])
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(sorted(fitting))
        problem = f"could be any of {names}" if fitting else f"is missing ({kind})"
        raise NoInterfaceError(
            f"the {what} of {_described(name, signature)} {problem}", ambiguous=bool(fitting)
        )

    chosen = part(
        *("input with user ids", query, contract.USER_ID, inputs, texts, numbers),
        kind="a string or whole number per row",
    )
    return RetrievalInterface(
        signature=name,
        query=chosen,
        ids=part(
            *("output with candidate ids", ids, contract.CANDIDATE_IDS, outputs, strings, integers),
            kind="strings or whole numbers [?, ?]",
        ),
        scores=part(
            *("output with scores", scores, contract.SCORES, outputs, floats),
            kind="floats [?, ?]",
        ),
        others=tuple(sorted(set(inputs) - {chosen})),
    )


def _is_query(spec: TensorSpec) -> bool:
    """Whether a tensor may hold one value per row."""
    shape = spec.shape
    return shape is None or len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _is_matrix(spec: TensorSpec) -> bool:
    return spec.shape is None or len(spec.shape) == 2


def _require(name: str, names: Iterable[str], what: str) -> None:
    if name not in names:
        listed = ", ".join(sorted(names)) or "none"
        raise NoInterfaceError(f"no {what} is called {name!r}; there are: {listed}")


def _described(name: str, signature: Signature) -> str:
    """Return a signature for a message: `serving_default (a: DT_STRING [?]) -> (…)`."""
    inputs, outputs = (
        ", ".join(f"{key}: {spec}" for key, spec in sorted(tensors.items()))
        for tensors in (signature.inputs, signature.outputs)
    )
    return f"{name} ({inputs}) -> ({outputs})"
