"""The flow of `retrieve`: choice of the signature, requests and results."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final

from shortlist.clients import contract, errors
from shortlist.clients._arguments import flag, shown, texts
from shortlist.clients._calls.call import Call, Flow, Spawn, may_be_unfit
from shortlist.clients._calls.interfaces import USUAL, Way, Ways
from shortlist.clients._calls.queries import Queries, checked_queries
from shortlist.clients._calls.rankings import checked_k, matrix, rankings, vector, versions
from shortlist.clients._codecs.requests import Input, Outputs, PredictRequest, Target
from shortlist.clients.interface import RetrievalInterface
from shortlist.clients.split import Split
from shortlist.clients.types import Exclude, Features, Filter, Metadata, Retrieval

__all__ = ["choose_way", "retrieve", "shared_options"]

log = logging.getLogger(__name__)

_AS_FILTER: Final = "Filter(any={'genre': ['Comedy']})"


def retrieve(
    call: Call,
    user_ids: Sequence[str] | None,
    *,
    history: Sequence[Sequence[str]] | None,
    history_ages: Sequence[Sequence[float | None]] | None,
    history_weights: Sequence[Sequence[float]] | None,
    features: Sequence[Features] | None,
    k: int | None,
    exclude: Exclude | None,
    exclude_history: bool,
    exclude_seen: bool,
    filter: Filter | None,  # noqa: A002 - the word of the public interface
) -> Flow[list[Retrieval]]:
    """Return candidates for each user, in order; each by its own label if the call has a split."""
    queries = checked_queries(
        user_ids,
        history=history,
        history_ages=history_ages,
        history_weights=history_weights,
        features=features,
    )
    k = None if k is None else checked_k(k)
    options = shared_options(exclude_history, exclude_seen, filter)
    if queries.history is None:
        options.pop(contract.EXCLUDE_HISTORY, None)
    if exclude is not None:
        queries.exclude = _excluded(queries.users, exclude)
    if call.split is not None:
        return _split_retrieve(call, call.split, queries, k, options)
    return _retrieve(call, queries, k, options)


def _retrieve(
    call: Call, queries: Queries, k: int | None, options: Mapping[str, Input]
) -> Flow[list[Retrieval]]:
    """Return candidates for each query, by the simplest signature that does it."""
    caller, target, failed = call.caller, call.target, None
    parts = queries.parts(caller.limits.batch_size)
    least, narrow = k or contract.DEFAULT_K, caller.widths
    plain = queries.only_users and queries.exclude is None and not options
    if plain and call.usual and (not narrow or least <= narrow.get(target, least)):
        try:
            replies = yield from call.send_all([_plain(part, target) for part in parts])
            width = max([matrix(r, contract.CANDIDATE_IDS, target).shape[1] for r in replies])
            if least <= width:
                return _retrievals(parts, replies, least, target, USUAL)
            narrow[target] = width
        except errors.ServingError as error:
            if not may_be_unfit(error):
                raise
            failed = error
    attempt = partial(_informed_retrieve, call, parts, k, options, failed)
    return (yield from call.informed(attempt, failed=failed))


def _informed_retrieve(
    call: Call,
    parts: list[Queries],
    k: int | None,
    options: Mapping[str, Input],
    failed: errors.ServingError | None,
    metadata: Metadata,
) -> Flow[list[Retrieval]]:
    """Return candidates for each query, by the signatures that the servable has.

    Raises:
        ServingError: `failed`, the answer to the usual request, if there is no better one.
        SignatureNotFound: The signatures cannot do what is asked.
    """
    target, narrow, least = call.target, call.caller.widths, k or contract.DEFAULT_K
    ways = call.ways(metadata)
    if failed is not None and ways.usual:
        raise failed
    way, wider, asked = choose_way(ways, parts[0], k, options, narrow.get(target))
    replies = yield from call.send_all([way.request(target, part, asked) for part in parts])
    width = max(matrix(reply, way.interface.ids, target).shape[1] for reply in replies)
    if least > width and contract.K not in way.options:
        if wider is not None:
            narrow[target] = width
            return (yield from _informed_retrieve(call, parts, k, options, None, metadata))
        if k is not None:
            raise _too_many(ways, width)
    return _retrievals(parts, replies, least, target, way.interface)


def choose_way(
    ways: Ways,
    queries: Queries,
    k: int | None,
    options: Mapping[str, Input],
    narrow: int | None = None,
) -> tuple[Way, Way | None, dict[str, Input | None]]:
    """Return how to ask for candidates, and the options of the requests.

    Args:
        ways: The ways to ask the servable.
        queries: Queries that are like all others of the call.
        k: Candidates per query; `None` for `DEFAULT_K`, or as many as the servable answers.
        options: Inputs that all queries share.
        narrow: Known width of the first way's answers; `None` if unknown.

    Returns:
        The way, another one if its answers turn out to be narrower than `k`, and the inputs that
        all queries share.

    Raises:
        SignatureNotFound: The signatures cannot do what is asked.
    """
    least, asked = k or contract.DEFAULT_K, {**_NO_OPTIONS, **options}
    way = ways.by_query(queries, ways.first, contract.RETRIEVE_BY_QUERY)
    wider = ways.wider if way is ways.first else None
    lacks = way.lacks({**asked, contract.EXCLUDE: queries.exclude})
    too_narrow = least > min(way.width or least, narrow or least)
    if wider is not None and (lacks or too_narrow):
        way, wider = wider, None
    elif lacks:
        raise ways.missing(contract.RETRIEVE, lacks)
    elif k is not None and way.width is not None and k > way.width:
        raise _too_many(ways, way.width)
    if contract.K in way.options:
        asked[contract.K] = Input(least, "DT_INT32")
    return way, wider, asked


def _too_many(ways: Ways, width: int) -> errors.SignatureNotFound:
    what = f"answers {width} candidates at most, fixed when it was saved (k={width})"
    return ways.missing(contract.RETRIEVE, what)


def _split_retrieve(
    call: Call, split: Split, queries: Queries, k: int | None, options: Mapping[str, Input]
) -> Flow[list[Retrieval]]:
    """Return candidates for each query, by the label from the split."""
    positions: dict[str, list[int]] = {}
    for position in range(len(queries.users)):
        positions.setdefault(split.label_for(queries.identity(position)), []).append(position)
    retrievals: dict[int, Retrieval] = {}
    for label, chosen in positions.items():
        part = queries.take(chosen)
        try:
            answers = yield from _retrieve(call.with_label(label), part, k, options)
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
            answers = yield from _retrieve(call.with_label(split.fallback), part, k, options)
        retrievals.update(zip(chosen, answers, strict=True))
    if split.shadow and call.caller.exchange_hooks:  # else no hook would get the answers
        for label in split.shadow:
            shadowed = [
                position
                for position in range(len(queries.users))
                if split.is_shadowed(queries.identity(position), label)
            ]
            if shadowed:
                part = queries.take(shadowed)
                yield Spawn(_retrieve(call.shadowing(label), part, k, options))
    return [retrievals[position] for position in range(len(queries.users))]


def _excluded(users: list[str], exclude: Exclude) -> list[list[str]] | None:
    """Return the excluded candidate ids of each user; `None` if nothing is excluded."""
    if not isinstance(exclude, Mapping):
        row = texts("exclude", exclude)
        return [row] * len(users) if row else None
    # A user id of another type would silently exclude nothing.
    by_user = dict(zip(texts("the keys of exclude", exclude), exclude.values(), strict=True))
    rows = [texts(f"exclude[{user!r}]", by_user.get(user, ())) for user in users]
    return rows if any(rows) else None


def _plain(queries: Queries, target: Target) -> PredictRequest:
    return PredictRequest(
        target=target,
        signature=contract.SERVING_DEFAULT,
        inputs={contract.USER_ID: Input(queries.users, "DT_STRING")},
        operation="retrieve",
    )


# The inputs of RETRIEVE and RETRIEVE_BY_QUERY that all queries of a call share, except K.
_NO_OPTIONS: Final[Mapping[str, Input | None]] = dict.fromkeys(
    (
        contract.EXCLUDE_HISTORY,
        contract.EXCLUDE_SEEN,
        contract.FILTER_ANY,
        contract.FILTER_ALL,
        contract.FILTER_MIN,
        contract.FILTER_MAX,
    )
)


def shared_options(
    exclude_history: bool, exclude_seen: bool, filter_: Filter | None
) -> dict[str, Input]:
    """Return the values of the shared inputs that are asked for.

    Raises:
        ValueError: A value has the wrong type.
    """
    options = {}
    if flag("exclude_history", exclude_history):
        options[contract.EXCLUDE_HISTORY] = Input(True, "DT_BOOL")
    if flag("exclude_seen", exclude_seen):
        options[contract.EXCLUDE_SEEN] = Input(True, "DT_BOOL")
    if filter_ is None:
        return options
    if not isinstance(filter_, Filter):
        raise ValueError(f"filter takes a Filter, got {shown(filter_)}; use {_AS_FILTER}")
    for name, values in ((contract.FILTER_ANY, filter_.any), (contract.FILTER_ALL, filter_.all)):
        if pairs := [f"{key}={value}" for key, many in values.items() for value in many]:
            options[name] = Input(pairs, "DT_STRING")
    for name, bounds in ((contract.FILTER_MIN, filter_.min), (contract.FILTER_MAX, filter_.max)):
        if bounds:
            pairs = [f"{key}={value!r}" for key, value in bounds.items()]
            options[name] = Input(pairs, "DT_STRING")
    return options


def _retrievals(
    parts: list[Queries],
    replies: list[Outputs],
    k: int,
    target: Target,
    interface: RetrievalInterface,
) -> list[Retrieval]:
    retrievals: list[Retrieval] = []
    label, none = repeat(target.label), repeat(None)
    for part, reply in zip(parts, replies, strict=True):
        users = part.users
        names, scores = rankings(reply, len(users), k, target, interface)
        known = vector(reply, contract.KNOWN_USER, len(users), bool)
        answered = versions(reply, len(users))
        events, features = (
            none if part.only_users else vector(reply, name, len(users), int)
            for name in (contract.KNOWN_HISTORY, contract.KNOWN_FEATURES)
        )
        retrievals += map(
            _retrieval, users, names, scores, known, answered, label, events, features
        )
    return retrievals


def _setters(names: Sequence[str]) -> list[Callable[[Retrieval, Any], None]]:
    return [getattr(Retrieval, name).__set__ for name in names]


# A frozen dataclass sets each field by name, which takes half the time of a row in a large
# batch. Setting the slots directly avoids that.
_new_retrieval = Retrieval.__new__
_set_user_id, _set_candidate_ids, _set_scores = _setters(["user_id", "candidate_ids", "scores"])
_set_known_user, _set_version, _set_label = _setters(["known_user", "version", "label"])
_set_known_history, _set_known_features = _setters(["known_history", "known_features"])
(_set_shards_missing,) = _setters(["shards_missing"])


def _retrieval(
    user_id: str,
    candidate_ids: tuple[str, ...],
    scores: tuple[float, ...],
    known_user: bool | None,
    version: int | None,
    label: str | None,
    known_history: int | None,
    known_features: int | None,
) -> Retrieval:
    """Return `Retrieval(…)`, in half the time."""
    retrieval = _new_retrieval(Retrieval)
    _set_user_id(retrieval, user_id)
    _set_candidate_ids(retrieval, candidate_ids)
    _set_scores(retrieval, scores)
    _set_known_user(retrieval, known_user)
    _set_version(retrieval, version)
    _set_label(retrieval, label)
    _set_known_history(retrieval, known_history)
    _set_known_features(retrieval, known_features)
    _set_shards_missing(retrieval, ())
    return retrieval
