"""A replay from the log to the figures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from shortlist.clients import contract
from shortlist.clients.cli.progress import tracked
from shortlist.clients.connection import PLAIN, Security
from shortlist.clients.errors import ShortlistError
from shortlist.clients.request_log.user_ids import hash_user_id
from shortlist.export.data.config import DataConfig
from shortlist.export.data.loading import load
from shortlist.export.data.outcomes import Outcomes
from shortlist.export.monitor.versions import epoch_seconds
from shortlist.export.monitor.words import seconds
from shortlist.export.notices import without_notices
from shortlist.export.replay.compare import Comparison
from shortlist.export.replay.outcomes import Join
from shortlist.export.replay.result import OutcomeFigures, Replay
from shortlist.export.replay.sides import LoadedVersion, ServedVersion, Side
from shortlist.serving.repository.names import parse_version
from shortlist.serving.repository.reference import VersionReference, find_version
from shortlist.serving.repository.version import Manifest, read_manifest
from shortlist.serving.request_log.queries import RecordedQuery, sampled_queries
from shortlist.serving.request_log.selection import SelectedLog, Selection
from shortlist.serving.rollout.judge.measures import Limits

__all__ = ["OutcomeError", "ReplaySettings", "run_replay"]

_PARTS: Final = ("signature", "query", "ids", "scores")
_FAVOURS: Final = (
    "users saw the recorded lists alone, so a version whose lists are like them is favoured, and "
    "what only the other one would have shown could hardly be chosen"
)


class OutcomeError(ShortlistError):
    """The interactions do not tell about the requests."""


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """What to replay.

    Attributes:
        logs: Request logs: files, folders and patterns.
        against: The two versions: labels or numbers, or `<model>/<version>`.
        model: Model in the log; `None` if it has only one.
        requests: Queries to ask; a sample of those in the log.
        k: Candidates to ask for and to compare; `None` for as many as recorded or usual.
        repository: Model repository, to load versions from.
        addresses: gRPC addresses to ask instead: one server with both, or one for each.
        timeout: Seconds for one request to a server.
        security: TLS, headers and proxies.
        outcomes: Interactions after the requests; `None` without any.
        window: Seconds after a request in which interactions count.
        key: Key of the log's hashed user ids; `None` if they are not.
        limits: How much worse the second version may be.
        max_hit_rate_drop: Largest drop of the hit rate, as a share of the first version's.
        shown: Most different lists to keep.
    """

    logs: Sequence[str]
    against: tuple[str, str]
    model: str | None = None
    requests: int = 2000
    k: int | None = None
    repository: Path = Path("models")
    addresses: Sequence[str] = ()
    timeout: float = contract.DEFAULT_TIMEOUT
    security: Security = PLAIN
    outcomes: DataConfig | None = None
    window: float = 86_400.0
    key: bytes | None = None
    limits: Limits = field(default_factory=Limits)
    max_hit_rate_drop: float = 0.1
    shown: int = 20


def run_replay(
    settings: ReplaySettings, *, report: Callable[[str], None] = lambda text: None
) -> Replay:
    """Ask recorded queries of two versions and compare.

    Args:
        settings: What to replay.
        report: Called with lines of progress.

    Raises:
        LogFileError: The log cannot be read, or holds no retrieval of the model.
        RepositoryError: A version does not exist, or cannot be loaded.
        ServingError: A server does not answer, or lacks a version.
        DataError: The interactions cannot be read.
        OutcomeError: No interaction follows a request within the window.
    """
    if len(settings.addresses) > 2:
        raise ValueError(
            f"give one address for both versions or one for each, got {len(settings.addresses)}"
        )
    found = _find_versions(settings)
    outcomes, title_of = _outcomes(settings)
    join = None if outcomes is None else Join(outcomes, window=settings.window)
    log = SelectedLog(settings.logs, Selection(model=settings.model))
    model, queries, recorded = _sampled(log, join, settings)
    report(f"{len(queries):,} of {recorded:,} recorded queries of {model}")
    with _opened(settings, model, found) as (sides, manifests):
        report(f"asking {sides[0].name} and {sides[1].name}")
        comparison = _compared(sides, queries, settings, join=join, title_of=title_of)
        names = [side.name for side in sides]
    judged = None if join is None else _judged(join, names, manifests, settings)
    times = [query.time for query in queries]
    return Replay(
        log=", ".join(settings.logs),
        model=model,
        how=", ".join(settings.addresses) or "offline",
        queries=len(queries),
        recorded=recorded,
        first_time=min(times),
        last_time=max(times),
        outcomes=judged,
        limits=comparison.limits(judged, settings.max_hit_rate_drop),
        left_out=log.left_out.shown(),
        notes=_notes(queries, settings.k),
        **comparison.figures(),
    )


def _compared(
    sides: tuple[Side, Side],
    queries: Sequence[RecordedQuery],
    settings: ReplaySettings,
    *,
    join: Join | None,
    title_of: Callable[[str], str],
) -> Comparison:
    """Ask both versions all queries."""
    comparison = Comparison(
        sides,
        k=settings.k,
        limits=settings.limits,
        join=join,
        shown=settings.shown,
        title_of=title_of,
    )
    with without_notices():
        comparison.warm_up(queries)
    for query in tracked(queries, "replay"):
        comparison.add(query)
    return comparison


def _notes(queries: Sequence[RecordedQuery], k: int | None) -> list[str]:
    """Return what the log does not hold."""
    notes = []
    rates = [query.sampling_rate for query in queries]
    if min(rates) < 1:
        between = f"{min(rates):.3g}"
        if min(rates) < max(rates):
            between += f" to {max(rates):.3g}, and each query counts once"
        notes.append(f"the log holds a share of the requests: sampling rate {between}")
    longest = max(len(query.answer) for query in queries)
    if k is not None and k > longest:
        notes.append(
            f"-k {k} is above what was recorded: no list in the log has more than {longest} "
            "candidates, so users were not shown the others"
        )
    return notes


def _outcomes(
    settings: ReplaySettings,
) -> tuple[Outcomes | None, Callable[[str], str]]:
    """Return the interactions, and the titles in their data."""
    if settings.outcomes is None:
        return None, str
    dataset = load(settings.outcomes)
    key = settings.key
    named = str if key is None else lambda user_id: hash_user_id(user_id, key)
    titles = dict(zip(dataset.candidate_ids, dataset.titles, strict=True))
    return Outcomes.of(dataset, named), lambda own: titles.get(own, own)


def _sampled(
    log: SelectedLog, join: Join | None, settings: ReplaySettings
) -> tuple[str, list[RecordedQuery], int]:
    """Return the model, a sample of the log's queries, and how many it has.

    Raises:
        ValueError: The log has several models.
        OutcomeError: No interaction follows any of the sample.
    """
    models: set[str] = set()

    def observe(query: RecordedQuery) -> None:
        models.add(query.model)
        if join is not None:
            join.observe(query.user_id, query.time)

    queries, recorded = sampled_queries(log, settings.requests, observe=observe)
    if len(models) > 1:
        raise ValueError(f"the log holds {', '.join(sorted(models))}; choose one by --model")
    if join is not None and not any(join.follow(query.user_id, query.time) for query in queries):
        source = None if settings.outcomes is None else settings.outcomes.source
        raise OutcomeError(
            f"no interaction in {source} follows a request of its user within "
            f"{seconds(settings.window)}; check that users have the same ids in both "
            "(--user-id-key for hashed ones) and that times are in UTC, or give a longer --window"
            + (" or more --requests" if len(queries) < recorded else "")
        )
    return models.pop(), queries, recorded


def _find_versions(settings: ReplaySettings) -> list[VersionReference]:
    """Return the versions in the repository, or ask the servers for them.

    That comes before everything that takes long: reading the log and loading a version.
    """
    model = settings.model or ""
    if not model and not all("/" in text for text in settings.against):
        model = next((record.model for record in SelectedLog(settings.logs)), "")
        if not model:
            return []  # an empty log, which has an error of its own
    if not settings.addresses:
        return [_find(text, model, settings.repository) for text in settings.against]
    for place, text in enumerate(settings.against):
        address = settings.addresses[place % len(settings.addresses)]
        _served(text, model, address, settings).close()
    return []


@contextmanager
def _opened(
    settings: ReplaySettings, model: str, found: Sequence[VersionReference]
) -> Iterator[tuple[tuple[Side, Side], tuple[Manifest, Manifest]]]:
    """Load both versions, or connect to their servers, for the duration of the context."""
    with ExitStack() as stack:
        sides: list[Side] = []
        manifests = []
        for place, text in enumerate(settings.against):
            side: Side
            manifest = Manifest()
            if found:
                manifest = read_manifest(found[place].path) or manifest
                interface = manifest.retrieval if manifest.interface else None
                tensors = {part: getattr(interface, part) for part in _PARTS} if interface else None
                name = _named(text, found[place])
                with without_notices():
                    side = LoadedVersion(found[place].path, name=name, tensors=tensors)
            else:
                address = settings.addresses[place % len(settings.addresses)]
                side = _served(text, model, address, settings)
            stack.callback(side.close)
            sides.append(side)
            manifests.append(manifest)
        yield (sides[0], sides[1]), (manifests[0], manifests[1])


def _find(text: str, model: str, repository: Path) -> VersionReference:
    return find_version(text if "/" in text else f"{model}/{text}", root=repository)


def _named(text: str, found: VersionReference) -> str:
    label = text.rpartition("/")[2]
    return str(found) if parse_version(label) is not None else f"{found} ({label})"


def _served(text: str, model: str, address: str, settings: ReplaySettings) -> Side:
    given, _, which = text.rpartition("/")
    version = parse_version(which)
    return ServedVersion(
        [address],
        model=given or model,
        version=version,
        label=None if version is not None else which,
        name=f"{given or model}/{which}",
        timeout=settings.timeout,
        security=settings.security,
    )


def _judged(
    join: Join,
    names: Sequence[str],
    manifests: Sequence[Manifest],
    settings: ReplaySettings,
) -> OutcomeFigures | None:
    notes = [_FAVOURS]
    for name, manifest in zip(names, manifests, strict=True):
        share = join.share_before(epoch_seconds(manifest.created))
        if share:
            notes.append(
                f"{name} was exported after {share:.0%} of these interactions: if it was trained "
                "on them, its hit rate is too high"
            )
    found = join.figures(notes)
    if found is not None and found.difference_interval is None:
        few = f"the change has no interval with {found.users} users, so no limit applies to it"
        found = replace(found, notes=(*found.notes, few))
    return found
