"""Flows of the retrieval calls: which signature they use and how its rows are read."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeVar

from shortlist.clients import contract, errors
from shortlist.clients._calls.flows import Flow, SignatureCache
from shortlist.clients._calls.rankings import (
    check_k,
    ids,
    matrix,
    rankings,
    replies_to,
    vector,
    versions,
)
from shortlist.clients._codecs.requests import Input, Outputs, PredictRequest, Target
from shortlist.clients.split import Split
from shortlist.clients.types import Filter, Retrieval

__all__ = ["Exclude", "Servables", "retrieve"]

log = logging.getLogger(__name__)

R = TypeVar("R")

Exclude = Sequence[str] | Mapping[str, Sequence[str]]


class Servables:
    """What a client remembers of the servables it has met."""

    def __init__(self) -> None:
        self.signatures = SignatureCache()
        self.narrow: dict[Target, int] = {}  # K of SERVING_DEFAULT where it was too small


def retrieve(
    user_ids: Sequence[str],
    *,
    k: int,
    exclude: Exclude | None,
    exclude_seen: bool,
    filter: Filter | None,  # noqa: A002 - the word of the public interface
    target: Target,
    split: Split | None,
    servables: Servables,
    batch_size: int,
) -> Flow[list[Retrieval]]:
    """Candidates for each user, in the order of the users.

    With a `split`, each user's label is the one that it gives, not the target's.
    """
    if split is not None:
        asked = {"k": k, "exclude": exclude, "exclude_seen": exclude_seen, "filter": filter}
        ours = {"servables": servables, "batch_size": batch_size}
        return (yield from _split_retrieve(user_ids, split, target.model, {**asked, **ours}))
    users = ids("user_ids", user_ids)
    check_k(k)
    excluded = _excluded(users, exclude)
    special = excluded is not None or exclude_seen or filter is not None
    parts = _parts(users, batch_size)
    if not special and (not servables.narrow or k <= servables.narrow.get(target, k)):
        replies = yield from replies_to([_plain(part, target) for part in parts])
        width = max([matrix(reply, contract.CANDIDATE_IDS, target).shape[1] for reply in replies])
        if k <= width:
            return _retrievals(parts, replies, k, target)
        servables.narrow[target] = width
    inputs = yield from servables.signatures.inputs(contract.RETRIEVE, target)
    options = _options(k, exclude_seen, filter)
    excluded_parts = [None] * len(parts) if excluded is None else _parts(excluded, batch_size)
    requests = [
        _retrieve_request(part, excluded_part, options, inputs, target)
        for part, excluded_part in zip(parts, excluded_parts, strict=True)
    ]
    replies = yield from replies_to(requests)
    return _retrievals(parts, replies, k, target)


def _parts(rows: list[R], size: int) -> list[list[R]]:
    """At most `size` rows each."""
    if len(rows) <= size:
        return [rows]
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _split_retrieve(
    user_ids: Sequence[str], split: Split, model: str, options: Mapping[str, Any]
) -> Flow[list[Retrieval]]:
    """As `retrieve`, each user by the label that the split gives."""
    users = ids("user_ids", user_ids)
    positions: dict[str, list[int]] = {}
    for position, user in enumerate(users):
        positions.setdefault(split.label_for(user), []).append(position)
    found: dict[int, Retrieval] = {}
    for label, chosen in positions.items():
        part = [users[position] for position in chosen]
        target = Target(model=model, label=label)
        try:
            answers = yield from retrieve(part, target=target, split=None, **options)
        except (errors.LabelNotFound, errors.ServableNotFound) as error:
            if label == split.fallback:
                raise
            log.warning(
                "label %r of %r is gone, %r answers: %s", label, model, split.fallback, error
            )
            target = Target(model=model, label=split.fallback)
            answers = yield from retrieve(part, target=target, split=None, **options)
        found.update(zip(chosen, answers, strict=True))
    return [found[position] for position in range(len(users))]


def _excluded(users: list[str], exclude: Exclude | None) -> list[list[str]] | None:
    """Excluded candidate ids of each user; None where nothing is excluded."""
    if not exclude:
        return None
    if isinstance(exclude, str):
        raise ValueError(f"exclude takes a list of candidate ids; use [{exclude!r}]")
    if not isinstance(exclude, Mapping):
        every = ids("exclude", exclude)
        return [every] * len(users)
    rows = [list(exclude.get(user, ())) for user in users]
    for row in rows:
        if row:
            ids("exclude", row)
    return rows


def _plain(users: list[str], target: Target) -> PredictRequest:
    return PredictRequest(
        target=target,
        signature=contract.SERVING_DEFAULT,
        inputs={contract.USER_ID: Input(users, "DT_STRING")},
        operation="retrieve",
    )


def _options(k: int, exclude_seen: bool, filter_: Filter | None) -> dict[str, Input | None]:
    """Inputs of RETRIEVE that are the same for every batch; None: not asked for."""
    chosen = filter_ or Filter()

    def pairs(values: Mapping[str, Sequence[str]]) -> Input | None:
        found = [f"{name}={value}" for name, many in values.items() for value in many]
        return Input(found, "DT_STRING") if found else None

    def bounds(values: Mapping[str, float]) -> Input | None:
        found = [f"{name}={value!r}" for name, value in values.items()]
        return Input(found, "DT_STRING") if found else None

    return {
        contract.K: Input(k, "DT_INT32"),
        contract.EXCLUDE_SEEN: Input(True, "DT_BOOL") if exclude_seen else None,
        contract.FILTER_ANY: pairs(chosen.any),
        contract.FILTER_ALL: pairs(chosen.all),
        contract.FILTER_MIN: bounds(chosen.min),
        contract.FILTER_MAX: bounds(chosen.max),
    }


def _retrieve_request(
    users: list[str],
    excluded: list[list[str]] | None,
    options: Mapping[str, Input | None],
    known: frozenset[str],
    target: Target,
) -> PredictRequest:
    """A request with every input that the signature has, neutral where nothing is asked."""
    width = max((len(row) for row in excluded), default=0) if excluded else 0
    padded = [row + [""] * (max(width, 1) - len(row)) for row in excluded or [[]] * len(users)]
    given: dict[str, Input | None] = {
        **options,
        contract.EXCLUDE: Input(padded, "DT_STRING") if width else None,
    }
    inputs = {contract.USER_ID: Input(users, "DT_STRING")}
    for name, value in given.items():
        if value is not None and name not in known:
            raise errors.Unsupported(
                f"signature {contract.RETRIEVE!r} of {target} has no input {name!r}; "
                f"it has: {', '.join(sorted(known))}; export the model anew"
            )
        if name in known:
            neutral = {
                contract.EXCLUDE: Input(padded, "DT_STRING"),
                contract.EXCLUDE_SEEN: Input(False, "DT_BOOL"),
            }
            inputs[name] = value or neutral.get(name, Input([], "DT_STRING"))
    return PredictRequest(
        target=target, signature=contract.RETRIEVE, inputs=inputs, operation="retrieve"
    )


def _retrievals(
    parts: list[list[str]], replies: list[Outputs], k: int, target: Target
) -> list[Retrieval]:
    found: list[Retrieval] = []
    for part, reply in zip(parts, replies, strict=True):
        names, scores = rankings(reply, len(part), k, target)
        known = vector(reply, contract.KNOWN_USER, len(part))
        answered = versions(reply, len(part))
        found += map(_retrieval, part, names, scores, known, answered, repeat(target.label))
    return found


def _setters(names: Sequence[str]) -> list[Callable[[Retrieval, Any], None]]:
    return [getattr(Retrieval, name).__set__ for name in names]


# A frozen dataclass looks each field up by name while it is made, which is half the time of
# a row in a large batch. Its slots take the values directly.
_new_retrieval = Retrieval.__new__
_set_user_id, _set_candidate_ids, _set_scores = _setters(["user_id", "candidate_ids", "scores"])
_set_known_user, _set_version, _set_label = _setters(["known_user", "version", "label"])


def _retrieval(
    user_id: str,
    candidate_ids: tuple[str, ...],
    scores: tuple[float, ...],
    known_user: bool | None,
    version: int | None,
    label: str | None,
) -> Retrieval:
    """`Retrieval(…)`, in half the time."""
    made = _new_retrieval(Retrieval)
    _set_user_id(made, user_id)
    _set_candidate_ids(made, candidate_ids)
    _set_scores(made, scores)
    _set_known_user(made, known_user)
    _set_version(made, version)
    _set_label(made, label)
    return made
