"""Measures what the query tower adds to a request."""

import argparse
import os
import time
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from shortlist.clients.cli.output import number, progress, write, write_json, write_table
from shortlist.export.bench.machine import machine
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs

__all__ = ["run"]

_HISTORIES: Final = (0, 5, 50, 200)
_BATCH: Final = 64
_USERS: Final = 1000
_KEPT: Final = 20  # events of each known user
_TASTE, _LINEAR, _ORDER, _LENGTH = 256, 256, 128, 50  # dimensions and events of the default recipe


@dataclass(frozen=True, kw_only=True)
class Row:
    """Times of one tower with one length of histories.

    Attributes:
        tower: `table` looks up a known user's query; `history` is the default recipe's.
        history: Events of each request.
        single_ms: Median time of one query.
        single_cpu_ms: Mean CPU time of one query.
        batch_ms: Median time per query in batches of 64.
        batch_cpu_ms: Mean CPU time per query in such batches.
    """

    tower: str
    history: int
    single_ms: float
    single_cpu_ms: float
    batch_ms: float
    batch_cpu_ms: float


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ValueError: An option is out of range.
    """
    for option in ("size", "repeats", "threads"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    rows = _measure(args.size, repeats=args.repeats, threads=args.threads)
    if args.json:
        write_json({"machine": machine(), "candidates": args.size, "rows": list(map(asdict, rows))})
        return 0
    lines = [
        [
            "tower",
            "events",
            "one query ms",
            "CPU ms",
            f"per query in a batch of {_BATCH} ms",
            "CPU ms",
        ]
    ]
    for row in rows:
        values = (row.single_ms, row.single_cpu_ms, row.batch_ms, row.batch_cpu_ms)
        lines.append([row.tower, str(row.history), *(number(value, ".3f") for value in values)])
    write_table(lines, text=(0,))
    write(f"{args.size:,} candidates, {args.threads} threads, {machine()}")
    return 0


def _measure(size: int, *, repeats: int, threads: int) -> list[Row]:
    """Time a tower with random weights, as many as the default recipe has."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from shortlist.export._tf import tf
    from shortlist.export.towers.events import Request
    from shortlist.export.towers.order import OrderTower
    from shortlist.export.towers.order_part import OrderPart
    from shortlist.export.towers.pooled import PooledPart
    from shortlist.export.towers.query_tower import QueryTower

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    dimension = _TASTE + _LINEAR + _ORDER
    progress(f"{size} candidates of {dimension} dimensions")
    random = np.random.default_rng(0)
    candidates = tf.Variable(tf.random.stateless_normal([size, dimension], [1, 2]), trainable=False)
    end = _TASTE + _LINEAR
    order = OrderTower(_ORDER, _LENGTH, tf.random.Generator.from_seed(1))
    users = [str(user) for user in range(_USERS)]
    tower = QueryTower(
        users,
        known=np.ones(_USERS, np.bool_),
        popular=np.zeros(dimension, np.float32),
        num_candidates=size,
        parts=[
            PooledPart(
                slice(0, _TASTE),
                random.normal(size=(_TASTE, _TASTE)).astype(np.float32),
                decay=0.8,
                normalized=True,
            ),
            PooledPart(
                slice(_TASTE, end),
                np.ones(_LINEAR, np.float32),
                decay=0.8,
                relative=True,
                factors=np.ones(size, np.float32),
            ),
            OrderPart(order, slice(end, dimension), scale=1.0, factor=1.0),
        ],
        kept=Histories(
            events=Pairs(
                starts=np.arange(_USERS + 1) * _KEPT,
                columns=random.integers(0, size, _USERS * _KEPT, np.int32),
            ),
            num_candidates=size,
        ),
    )

    def embed(places: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.convert_to_tensor(candidates), places)

    own = random.normal(size=(_USERS, dimension)).astype(np.float32)
    stored = QueryTower.of_table(users, own, own[0], num_candidates=size)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def look_up(user_ids: tf.Tensor) -> tf.Tensor:
        return stored(embed, tf.ensure_shape(stored.positions(user_ids), [None]))

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.float32),
        ],
    )
    def queries(user_ids: tf.Tensor, positions: tf.Tensor, ages: tf.Tensor) -> tf.Tensor:
        features = tf.zeros([tf.size(user_ids), 0], tf.string)
        request = Request(positions, ages, tf.ones_like(ages), features)
        return tower(embed, tower.positions(user_ids), request)

    def timed(batch: int, history: int | None) -> tuple[float, float]:
        """Median time and mean CPU time of a query in ms; `history` None for the table."""
        walls, cpu = [], 0.0
        for repeat in range(-3, repeats):
            user_ids = tf.constant([str(repeat % _USERS) if history is None else ""] * batch)
            events = random.integers(0, size, (batch, history or 0))
            ages = np.sort(random.random((batch, history or 0)) * 1e6)[:, ::-1]
            inputs = (tf.constant(events, tf.int32), tf.constant(ages, tf.float32))
            start, start_cpu = time.perf_counter(), time.process_time()
            if history is None:
                look_up(user_ids)
            else:
                queries(user_ids, *inputs)
            if repeat >= 0:
                walls.append(time.perf_counter() - start)
                cpu += time.process_time() - start_cpu
        return 1e3 * float(np.median(walls)) / batch, 1e3 * cpu / repeats / batch

    rows = []
    for history in (None, *_HISTORIES):
        (single, single_cpu), (batched, batch_cpu) = timed(1, history), timed(_BATCH, history)
        rows.append(
            Row(
                tower="table" if history is None else "history",
                history=history or 0,
                single_ms=single,
                single_cpu_ms=single_cpu,
                batch_ms=batched,
                batch_cpu_ms=batch_cpu,
            )
        )
    return rows
