"""Measures how candidates that training never met compete, by where their embeddings come from."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from shortlist.clients.cli.output import progress, table, write, write_json
from shortlist.clients.cli.progress import tracked
from shortlist.export.bench.machine import machine
from shortlist.export.bench.quality import Spread, spread_of
from shortlist.export.config import PRESETS, SplitMethod
from shortlist.export.data.config import DataConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_facts
from shortlist.export.data.histories import Histories
from shortlist.export.data.loading import load
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import configured_split
from shortlist.export.training.train import train
from shortlist.export.update.newcomers import SHARE, ContentMap, Takers

__all__ = ["run"]

_KS: Final = (10, 100)
_NEW: Final = 0.1  # of the candidates, which training does not meet
_BATCH: Final = 0.01  # of the candidates, which one update adds
_QUERIES: Final = 300  # users whose queries an update looks at
_TAKERS: Final = (1, 2, 5, 20)

Positions = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class _World:
    """What is known before the new candidates come, and what judges afterwards.

    Attributes:
        rows: `[n, d]`, embeddings of the known candidates.
        queries: `[num_users, d]`.
        seen: `[num_users]`, distinct known candidates of each user.
        known: Held-out users and known candidates, `[2, num_held_out]`.
        new: Users and new candidates that judge, `[2, num_judged]`.
        since: Users and new candidates that an update may know of, in random order.
    """

    rows: Vectors
    queries: Vectors
    seen: Pairs
    known: Positions
    new: Positions
    since: Positions


class _Judge:
    """Ranks targets among the candidates that each user has not seen."""

    def __init__(self, world: _World) -> None:
        self._world, self._total = world, len(world.rows)
        self._sorted: list[Vectors] = []
        targets = np.einsum("nd,nd->n", world.queries[world.known[0]], world.rows[world.known[1]])
        for user, query in enumerate(world.queries):
            scores = world.rows @ query
            scores[world.seen.of(user)] = -np.inf
            self._sorted.append(np.sort(scores))
        self._targets = targets
        self._before = self._ranks(world.known[0], targets, self._sorted)
        self.base = {k: float((self._before < k).mean()) for k in _KS}

    def hit_rates(self, rows: Vectors, batches: Sequence[Positions]) -> dict[str, float]:
        """Return the hit rates when each batch of new candidates is added, on average.

        `unseen hit_rate@k` is that of new candidates, `times random` this rate at the largest k
        divided by that of random lists, and `known change@k` the relative change of the hit
        rate of known candidates.
        """
        users, places = self._world.new
        hits, known, chance = dict.fromkeys(_KS, 0), dict.fromkeys(_KS, 0.0), 0.0
        scores = self._world.queries @ rows.T
        for batch in batches:
            added = [np.sort(own) for own in scores[:, batch]]
            judged = np.isin(places, batch)
            own, targets = users[judged], scores[users[judged], places[judged]]
            ranks = self._ranks(own, targets, self._sorted) + self._ranks(own, targets, added)
            after = self._before + self._ranks(self._world.known[0], self._targets, added)
            for k in _KS:
                hits[k] += int((ranks < k).sum())
                known[k] += float((after < k).mean()) / len(batches)
            chance += judged.sum() * _KS[-1] / (self._total + len(batch))
        return {
            **{f"unseen hit_rate@{k}": hits[k] / len(users) for k in _KS},
            "times random": hits[_KS[-1]] / chance,
            **{f"known change@{k}": known[k] / self.base[k] - 1.0 for k in _KS},
        }

    def _ranks(self, users: Positions, scores: Vectors, ascending: Sequence[Vectors]) -> Positions:
        """Return how many candidates of each user have a higher score."""
        ranks = np.empty(len(users), np.int64)
        order = np.argsort(users, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(users[order])) + 1):
            if len(rows):
                own = ascending[users[rows[0]]]
                ranks[rows] = len(own) - np.searchsorted(own, scores[rows], side="right")
        return ranks


def run(args: argparse.Namespace, source: DataConfig) -> int:
    """Measure and print.

    Raises:
        ValueError: An option is out of range, or the data is too small.
    """
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
    dataset = load(source)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    values: dict[str, dict[str, list[float]]] = {}
    for seed in tracked(seeds, "unseen"):
        for row, metrics in _measured(dataset, seed, args.split):
            for name, value in metrics.items():
                values.setdefault(row, {}).setdefault(name, []).append(value)
            progress(f"seed {seed}, {row}: {metrics['times random']:.1f} times random")
    rows = {
        row: {name: spread_of(own) for name, own in metrics.items()}
        for row, metrics in values.items()
    }
    if args.json:
        write_json(
            {
                "data": dataset_facts(dataset),
                "split": args.split,
                "seeds": list(seeds),
                "machine": machine(),
                "rows": rows,
            }
        )
    else:
        write(_markdown(dataset, args.split, seeds, rows))
    return 0


def _markdown(
    dataset: Dataset,
    split: SplitMethod,
    seeds: Sequence[int],
    rows: Mapping[str, Mapping[str, Spread]],
) -> str:
    names = list(next(iter(rows.values())))
    lines = [["embedding from", *(name.replace("_", " ") for name in names)]]
    for row, values in rows.items():
        cells = [row]
        for name in names:
            digits = ".1f" if name == "times random" else "+.2%" if "change" in name else ".4f"
            cells.append(f"{values[name].mean:{digits}} ± {values[name].deviation:{digits}}")
        lines.append([cell.replace("± +", "± ") for cell in cells])
    head = (
        f"{dataset.name}: {dataset.num_interactions:,} interactions of {len(dataset.user_ids):,} "
        f"users with {len(dataset.candidate_ids):,} candidates, of which training does not meet "
        f"{_NEW:.0%}; split {split}, seeds {', '.join(map(str, seeds))}; {machine()}. Unless a row "
        f"says otherwise, {_BATCH:.0%} of the candidates are added at once."
    )
    return f"{head}\n\n{table(lines, markdown=True)}"


def _measured(
    dataset: Dataset, seed: int, method: SplitMethod
) -> Iterator[tuple[str, dict[str, float]]]:
    """Train without some candidates, and yield the metrics of each way to add them."""
    random, total = np.random.default_rng(seed), len(dataset.candidate_ids)
    count = max(1, int(_NEW * total))
    new = random.choice(total, count, replace=False)
    ordered = _reordered(dataset, np.concatenate([np.setdiff1d(np.arange(total), new), new]))
    world = _world(ordered, total - count, seed, method)
    judge = _Judge(world)
    batches = np.array_split(np.arange(count), round(_NEW / _BATCH))

    def content(words: bool = True, share: float | None = SHARE) -> ContentMap:
        users = np.random.default_rng(seed).permutation(len(world.queries))[:_QUERIES]
        places, cells = world.seen.cells(users)
        return ContentMap.fit(
            world.rows,
            ordered.attributes,
            ordered.titles if words else None,
            counts=np.bincount(world.seen.columns, minlength=len(world.rows)),
            queries=world.queries[users],
            seen=Pairs.by_row(places, world.seen.columns[cells], num_rows=len(users)),
            share=share,
        )

    yield "content, not moved", judge.hit_rates(content(share=None).rows, batches)
    if dataset.attributes:
        yield "attributes alone", judge.hit_rates(content(words=False).rows, batches)
    best = content()
    yield "content", judge.hit_rates(best.rows, batches)
    yield f"content, {_NEW:.0%} at once", judge.hit_rates(best.rows, [np.arange(count)])
    number = _numbers(world.since[1])
    for most in _TAKERS:
        users, places = world.since[:, number < most]
        takers = Takers(queries=world.queries[users], candidates=places)
        name = f"content, {most} taker{'s' if most > 1 else ''}"
        yield name, judge.hit_rates(best.with_takers(takers), batches)
    like = _likest(world, count)
    rows = np.where(like[:, None] < 0, best.rows, best.like(world.rows[like]))
    yield "like another", judge.hit_rates(rows, batches)


def _reordered(dataset: Dataset, order: Positions) -> Dataset:
    """Return the dataset with its candidates in another order."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return dataclasses.replace(
        dataset,
        candidate_ids=tuple(dataset.candidate_ids[row] for row in order.tolist()),
        titles=tuple(dataset.titles[row] for row in order.tolist()),
        candidate_positions=place[dataset.candidate_positions],
        attributes={name: own.take(order) for name, own in dataset.attributes.items()},
        words={name: own.take(order) for name, own in dataset.words.items()},
    )


def _known(dataset: Dataset, count: int) -> Dataset:
    """Return the dataset with the first candidates alone."""
    kept, first = np.flatnonzero(dataset.candidate_positions < count), slice(0, count)
    return dataclasses.replace(
        dataset,
        candidate_ids=dataset.candidate_ids[first],
        titles=dataset.titles[first],
        attributes={name: own.take(first) for name, own in dataset.attributes.items()},
        words={name: own.take(first) for name, own in dataset.words.items()},
        user_positions=dataset.user_positions[kept],
        candidate_positions=dataset.candidate_positions[kept],
        ratings=None if dataset.ratings is None else dataset.ratings[kept],
        timestamps=None if dataset.timestamps is None else dataset.timestamps[kept],
        weights=None if dataset.weights is None else dataset.weights[kept],
        context={
            name: dataclasses.replace(own, codes=own.codes[kept])
            for name, own in dataset.context.items()
        },
    )


def _world(ordered: Dataset, count: int, seed: int, method: SplitMethod) -> _World:
    """Train on the first candidates alone."""
    dataset = _known(ordered, count)
    towers, config = PRESETS["default"]
    config = dataclasses.replace(config, seed=seed, split=method)
    split = configured_split(dataset, config)
    model = train(dataset, split, towers, config)
    seen = Histories.of_users(dataset, split.fitted).distinct()
    users, places = (
        positions[split.held_out].astype(np.int64)
        for positions in (dataset.user_positions, dataset.candidate_positions)
    )
    fresh = ~seen.contain(users, places)  # seen candidates are left out of lists
    new = np.flatnonzero(ordered.candidate_positions >= count)
    new = np.random.default_rng(seed).permutation(new)
    pairs = np.stack([ordered.user_positions[new], ordered.candidate_positions[new] - count])
    pairs = pairs.astype(np.int64)
    half = _numbers(pairs[1]) % 2 == 0
    if not half.any() or not fresh.any():
        raise ValueError(f"{ordered.name} has too few interactions to judge new candidates by")
    return _World(
        rows=model.candidate_embeddings,
        queries=model.embed_users(np.arange(len(dataset.user_ids))),
        seen=seen,
        known=np.stack([users[fresh], places[fresh]]),
        new=pairs[:, half],
        since=pairs[:, ~half],
    )


def _numbers(candidates: Positions) -> Positions:
    """Return the number of each event among those of its candidate, from 0."""
    order = np.argsort(candidates, kind="stable")
    ends = np.searchsorted(candidates[order], candidates[order])
    numbers = np.empty_like(candidates)
    numbers[order] = np.arange(len(order)) - ends
    return numbers


def _likest(world: _World, count: int) -> Positions:
    """Return the known candidate with the most alike users for each new one; -1 for none.

    It stands for a person who knows the candidates, so all users but the judging ones count.
    """
    known = csr_matrix(
        (np.ones(len(world.seen.columns)), world.seen.columns, world.seen.starts),
        (len(world.queries), len(world.rows)),
    )
    new = csr_matrix(
        (np.ones(len(world.since[0])), (world.since[1], world.since[0])),
        (count, len(world.queries)),
    )
    lengths = np.sqrt(np.asarray(known.sum(axis=0)).ravel() + 1.0)
    alike = (new @ known).toarray() / lengths
    return np.where(alike.max(axis=1) > 0, alike.argmax(axis=1), -1)
