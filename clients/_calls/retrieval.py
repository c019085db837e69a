"""The flow of `retrieve`: choice of the signature, requests and results."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, TypeVar

from shortlist.clients import contract, errors
from shortlist.clients._arguments import flag, shown, texts
from shortlist.clients._calls.call import Call, Flow
from shortlist.clients._calls.rankings import (
    checked_ids,
    checked_k,
    matrix,
    rankings,
    vector,
    versions,
)
from shortlist.clients._codecs.requests import Input, Outputs, PredictRequest, Target
from shortlist.clients.split import Split
from shortlist.clients.types import Exclude, Filter, Retrieval

__all__ = ["retrieve"]

log = logging.getLogger(__name__)

R = TypeVar("R")

_AS_FILTER: Final = "Filter(any={'genre': ['Comedy']})"


def retrieve(
    call: Call,
    user_ids: Sequence[str],
    *,
    k: int,
    exclude: Exclude | None,
    exclude_seen: bool,
    filter: Filter | None,  # noqa: A002 - the word of the public interface
) -> Flow[list[Retrieval]]:
    """Return candidates for each user, in order; each by its own label if the call has a split."""
    users = checked_ids("user_ids", user_ids)
    if call.split is not None:
        options = {"k": k, "exclude": exclude, "exclude_seen": exclude_seen, "filter": filter}
        return (yield from _split_retrieve(call, call.split, users, options))
    k, exclude_seen = checked_k(k), flag("exclude_seen", exclude_seen)
    if filter is not None and not isinstance(filter, Filter):
        raise ValueError(f"filter takes a Filter, got {shown(filter)}; use {_AS_FILTER}")
    excluded = _excluded(users, exclude)
    target, narrow, batch_size = call.target, call.caller.widths, call.caller.limits.batch_size
    parts = _parts(users, batch_size)
    plain = excluded is None and not exclude_seen and filter is None
    if plain and (not narrow or k <= narrow.get(target, k)):
        replies = yield from call.send_all([_plain(part, target) for part in parts])
        width = max([matrix(reply, contract.CANDIDATE_IDS, target).shape[1] for reply in replies])
        if k <= width:
            return _retrievals(parts, replies, k, target)
        narrow[target] = width
    inputs = yield from call.inputs_of(contract.RETRIEVE)
    asked = _options(k, exclude_seen, filter)
    excluded_parts = [None] * len(parts) if excluded is None else _parts(excluded, batch_size)
    requests = [
        _retrieve_request(part, excluded_part, asked, inputs, target)
        for part, excluded_part in zip(parts, excluded_parts, strict=True)
    ]
    replies = yield from call.send_all(requests)
    return _retrievals(parts, replies, k, target)


def _parts(rows: list[R], size: int) -> list[list[R]]:
    """Return the rows in parts of at most `size`."""
    if len(rows) <= size:
        return [rows]
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _split_retrieve(
    call: Call, split: Split, users: list[str], options: Mapping[str, Any]
) -> Flow[list[Retrieval]]:
    """Return candidates for each user, by the label from the split."""
    positions: dict[str, list[int]] = {}
    for position, user in enumerate(users):
        positions.setdefault(split.label_for(user), []).append(position)
    retrievals: dict[int, Retrieval] = {}
    for label, chosen in positions.items():
        part = [users[position] for position in chosen]
        try:
            answers = yield from retrieve(call.with_label(label), part, **options)
        except (errors.LabelNotFound, errors.ServableNotFound) as error:
            if label == split.fallback:
                raise
            log.warning(
                "label %r of %r is not available, %r answers: %s",
                label,
                call.target.model,
                split.fallback,
                error,
            )
            answers = yield from retrieve(call.with_label(split.fallback), part, **options)
        retrievals.update(zip(chosen, answers, strict=True))
    return [retrievals[position] for position in range(len(users))]


def _excluded(users: list[str], exclude: Exclude | None) -> list[list[str]] | None:
    """Return the excluded candidate ids of each user; `None` if nothing is excluded."""
    if exclude is None:
        return None
    if not isinstance(exclude, Mapping):
        row = texts("exclude", exclude)
        return [row] * len(users) if row else None
    # A user id of another type would silently exclude nothing.
    by_user = dict(zip(texts("the keys of exclude", exclude), exclude.values(), strict=True))
    rows = [texts(f"exclude[{user!r}]", by_user.get(user, ())) for user in users]
    return rows if any(rows) else None


def _plain(users: list[str], target: Target) -> PredictRequest:
    return PredictRequest(
        target=target,
        signature=contract.SERVING_DEFAULT,
        inputs={contract.USER_ID: Input(users, "DT_STRING")},
        operation="retrieve",
    )


def _options(k: int, exclude_seen: bool, filter_: Filter | None) -> dict[str, Input | None]:
    """Return the inputs of RETRIEVE that all batches share; `None` for unused ones."""
    chosen = filter_ or Filter()

    def pairs(values: Mapping[str, Sequence[str]]) -> Input | None:
        texts = [f"{name}={value}" for name, many in values.items() for value in many]
        return Input(texts, "DT_STRING") if texts else None

    def bounds(values: Mapping[str, float]) -> Input | None:
        texts = [f"{name}={value!r}" for name, value in values.items()]
        return Input(texts, "DT_STRING") if texts else None

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
    """Return a request with every input of the signature, neutral if not asked for."""
    width = max((len(row) for row in excluded), default=0) if excluded else 0
    padded = [row + [""] * (max(width, 1) - len(row)) for row in excluded or [[]] * len(users)]
    asked: dict[str, Input | None] = {
        **options,
        contract.EXCLUDE: Input(padded, "DT_STRING") if width else None,
    }
    inputs = {contract.USER_ID: Input(users, "DT_STRING")}
    for name, value in asked.items():
        if value is not None and name not in known:
            raise errors.Unsupported(
                f"signature {contract.RETRIEVE!r} of {target} has no input {name!r}; "
                f"it has: {', '.join(sorted(known))}; export the model again"
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
    retrievals: list[Retrieval] = []
    for part, reply in zip(parts, replies, strict=True):
        names, scores = rankings(reply, len(part), k, target)
        known = vector(reply, contract.KNOWN_USER, len(part))
        answered = versions(reply, len(part))
        retrievals += map(_retrieval, part, names, scores, known, answered, repeat(target.label))
    return retrievals


def _setters(names: Sequence[str]) -> list[Callable[[Retrieval, Any], None]]:
    return [getattr(Retrieval, name).__set__ for name in names]


# A frozen dataclass sets each field by name, which takes half the time of a row in a large
# batch. Setting the slots directly avoids that.
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
    """Return `Retrieval(…)`, in half the time."""
    retrieval = _new_retrieval(Retrieval)
    _set_user_id(retrieval, user_id)
    _set_candidate_ids(retrieval, candidate_ids)
    _set_scores(retrieval, scores)
    _set_known_user(retrieval, known_user)
    _set_version(retrieval, version)
    _set_label(retrieval, label)
    return retrieval
