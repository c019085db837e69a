"""`shortlist bench quality`, `unseen`, `index`, `export`, `train`, `warm`, `tower` and `bulk`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.clients.cli.output import progress, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.clients.contract import INDEXES
from shortlist.export.cli.options import SPLIT_DEFAULT, add_data_arguments, data_config
from shortlist.export.config import (
    BASELINES,
    PRESETS,
    PROTOCOLS,
    ROW_TYPES,
    SPLIT_METHODS,
    ExportConfig,
    IvfConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset

__all__ = ["add_benches", "quality", "train", "unseen", "warm"]

_CLI = "shortlist.export.cli"
_BENCH = "shortlist.export.bench"


def add_benches(benches: Parsers) -> None:
    """Add the benchmarks of this package; imports nothing heavy."""
    _add_quality(benches)
    _add_unseen(benches)
    _add_index(benches)
    _add_export(benches)
    _add_train(benches)
    _add_warm(benches)
    _add_tower(benches)
    _add_bulk(benches)


def _add_quality(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "quality",
        "Compare hit rates of recipes and baselines on the same splits, over several seeds.",
        details="Prints mean and standard deviation over the seeds as a Markdown table, headed by "
        "the data, the split, the seeds and the machine.",
        example="shortlist bench quality --data sample --seeds 1 --row default --row popularity "
        "--split leave_last_out",
        run=f"{_CLI}.bench:quality",
    )
    add_data_arguments(parser)
    _add_seeds(parser)
    parser.add_argument(
        "--row",
        action="append",
        metavar="NAME",
        help=f"preset ({', '.join(PRESETS)}), baseline ({', '.join(BASELINES)}) or variant of "
        "--ablation; repeatable (default: all)",
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="compare --preset with variants that differ from it in one part",
    )
    parser.add_argument(
        "--preset",
        default="default",
        choices=tuple(PRESETS),
        help="recipe that --ablation varies (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=SPLIT_METHODS,
        help="method of holding out interactions " + SPLIT_DEFAULT,
    )
    parser.add_argument(
        "--protocol",
        action="append",
        choices=PROTOCOLS,
        help="protocol of the columns; repeatable (default: seen_excluded, then seen_kept)",
    )
    parser.add_argument(
        "-k",
        "--k",
        type=int,
        action="append",
        metavar="K",
        help="cut-off of the columns; repeatable (default: 10 and 100)",
    )
    parser.add_argument("--ndcg", action="store_true", help="add columns for NDCG")


def quality(args: argparse.Namespace) -> int:
    """Compare recipes and baselines on the same splits."""
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
    if args.k and min(args.k) < 1:
        raise ValueError(f"--k must be at least 1, got {min(args.k)}")
    source = data_config(args)
    from shortlist.export.bench.quality import ABLATIONS, SHOWN_KS, as_markdown, compare
    from shortlist.export.data import load
    from shortlist.export.evaluation.evaluate import KS

    dataset = load(source)
    every = (args.preset, *ABLATIONS) if args.ablation else (*BASELINES, *_presets_for(dataset))
    rows = args.row or every
    protocols = args.protocol or ["seen_excluded", "seen_kept"]
    ks = args.k or SHOWN_KS
    comparison = compare(
        dataset,
        rows,
        range(args.first_seed, args.first_seed + args.seeds),
        base=args.preset,
        method=args.split,
        protocol=protocols[0],
        ks=sorted({*KS, *ks}),
        progress=progress,
    )
    if args.json:
        write_json(comparison)
    else:
        metrics = ("hit_rate", "ndcg") if args.ndcg else ("hit_rate",)
        write(as_markdown(comparison, protocols=protocols, ks=ks, metrics=metrics))
    return 0


def _presets_for(dataset: "Dataset") -> list[str]:
    """Return all presets, those that predict ratings only if the data has some."""
    rated = dataset.ratings is not None
    return [name for name, (_, config) in PRESETS.items() if rated or not config.rating_weight]


def _add_unseen(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "unseen",
        "Measure how candidates that training never met compete with known ones.",
        details="Trains without a tenth of the candidates, and adds them as `shortlist update` "
        "does. Prints their hit rates, seen candidates excluded, that at 100 relative to random "
        "lists, and what known candidates lose, mean and standard deviation over the seeds.",
        example="shortlist bench unseen --data sample --seeds 1",
        run=f"{_CLI}.bench:unseen",
    )
    add_data_arguments(parser)
    _add_seeds(parser)
    parser.add_argument(
        "--split",
        choices=("random", "leave_last_out"),
        default="random",
        help="method of holding out interactions with known candidates (default: %(default)s)",
    )


def unseen(args: argparse.Namespace) -> int:
    """Measure candidates that training never met."""
    from shortlist.export.bench.unseen import run

    return run(args, data_config(args))


def _add_seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="number of seeds (default: %(default)s)"
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        default=43,  # recipes were tuned with 42
        metavar="N",
        help="first seed (default: %(default)s)",
    )


def _add_index(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "index",
        "Compare recall, latency, memory and build time of the indexes.",
        details="Builds each index over synthetic vectors, tunes it to a recall and measures it.",
        example="shortlist bench index --size 10000 --recall 0.95",
        run=f"{_BENCH}.index:run",
    )
    _add_corpus_arguments(parser)
    parser.add_argument(
        "--recall",
        type=float,
        action="append",
        metavar="SHARE",
        help="recall@10 to tune to; repeatable (default: 0.9 and 0.95)",
    )
    for option, default, text in (
        ("--queries", 300, "queries to measure with"),
        ("--threads", 1, "threads of TensorFlow"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="measure the servables of --repository through this server's gRPC port instead",
    )


def _add_export(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "export",
        "Measure time, memory and disk of publishing and serving a corpus, by its size.",
        details="Publishes synthetic vectors by the code of `shortlist export`, gates included, "
        "and serves each servable from an embedded server.",
        example="shortlist bench export --size 10000 --size 100000 --picture cost.svg",
        run=f"{_BENCH}.export:run",
    )
    _add_corpus_arguments(parser)
    parser.add_argument(
        "--recall",
        type=float,
        default=ExportConfig.recall,
        metavar="SHARE",
        help="recall@10 to tune to (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of TensorFlow (default: all cores)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="timeout for one export (default: %(default)g)",
    )


def _add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=int,
        action="append",
        metavar="N",
        help="number of candidates; repeatable (default: 10000 and 100000)",
    )
    parser.add_argument(
        "--index",
        action="append",
        choices=INDEXES,
        help="index to measure; repeatable (default: all; scann only if it is installed)",
    )
    parser.add_argument(
        "--vectors",
        default="towers",
        choices=("towers", "mixture"),
        help="unit vectors with a decaying spectrum, or isotropic clusters (default: %(default)s)",
    )
    parser.add_argument(
        "--dimension",
        type=int,
        default=64,
        metavar="N",
        help="length of a vector (default: %(default)s)",
    )
    parser.add_argument(
        "--row-type",
        default=IvfConfig.row_type,
        choices=ROW_TYPES,
        help="type in which ivf scores rows first (default: %(default)s)",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="SVG file for the curves")
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help="folder to keep the servables in, as bench_<index>; needs a single --size",
    )


def _add_train(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "train",
        "Compare interactions per second of training with TFRS's tutorial.",
        details="Trains on the same data with TFRS's basic retrieval tutorial as written, the "
        "preset `tutorial` and the default recipe. With --interactions and --corpus-size, trains "
        "the default recipe's taste and order on synthetic data of that size instead.",
        example="shortlist bench train --data sample --json",
        run=f"{_CLI}.bench:train",
    )
    add_data_arguments(parser, default="sample")
    for option, kind, default, text in (
        ("--epochs", int, 3, "epochs of TFRS's tutorial"),
        ("--seconds", float, 10.0, "minimum seconds per recipe; with synthetic data, per part"),
    ):
        parser.add_argument(
            option, type=kind, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    group = parser.add_argument_group("synthetic data")
    group.add_argument("--interactions", type=int, metavar="N", help="such as 25000000")
    group.add_argument("--corpus-size", type=int, metavar="N", help="such as 1000000")
    group.add_argument(
        "--num-users", type=int, metavar="N", help="(default: one per 100 interactions)"
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=PRESETS["default"][1].batch_size,
        metavar="N",
        help="users per step (default: %(default)s)",
    )


def train(args: argparse.Namespace) -> int:
    """Measure the speed of training."""
    from shortlist.export.bench.train import run

    return run(args, data_config(args, source="sample"))


def _add_warm(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "warm",
        "Compare warm starts on growing data with training from scratch.",
        details="Trains on the first part of the data by time, then goes on from day to day with "
        "`--warm-start` as the data grows. On the first day and every --cold-every days, it also "
        "trains from scratch on the same data.",
        example="shortlist bench warm --data sample --days 1 --share 0.8 --epochs 6",
        run=f"{_CLI}.bench:warm",
    )
    add_data_arguments(parser, default="sample")
    for option, default, text in (
        ("--days", 10, "days of growth"),
        ("--cold-every", 5, "days between two trainings from scratch"),
        ("--epochs", TrainConfig.epochs, "maximum number of passes from scratch"),
        ("--seeds", 1, "number of seeds"),
        ("--first-seed", 43, "first seed"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    for option, share, text in (
        ("--share", 0.6, "share of the interactions on day 0"),
        ("--growth", 0.05, "growth per day, as a share"),
    ):
        parser.add_argument(
            option, type=float, default=share, metavar="X", help=f"{text} (default: %(default)s)"
        )


def warm(args: argparse.Namespace) -> int:
    """Compare warm starts with training from scratch."""
    from shortlist.export.bench.warm import run

    return run(args, data_config(args, source="sample"))


def _add_tower(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "tower",
        "Measure the time that the query tower adds to a request with a history.",
        details="Computes queries of unknown users with a tower of the default recipe's size and "
        "random weights, for several lengths of histories, without an index or a server.",
        example="shortlist bench tower --size 10000",
        run=f"{_BENCH}.tower:run",
    )
    for option, default, text in (
        ("--size", 100_000, "candidates"),
        ("--repeats", 200, "timed calls of each kind"),
        ("--threads", 1, "threads of TensorFlow"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )


def _add_bulk(benches: Parsers) -> None:
    parser = add_parser(
        benches,
        "bulk",
        "Compare `shortlist recommend` with runs of the signature alone.",
        details="Builds each index over synthetic vectors, then takes turns: the signature in "
        "batches with its inputs ready, and everything from ids to Parquet files.",
        example="shortlist bench bulk --size 10000",
        run=f"{_BENCH}.bulk:run",
    )
    parser.add_argument(
        "--index",
        action="append",
        choices=INDEXES,
        help="index to measure; repeatable (default: all; scann only if it is installed)",
    )
    for option, default, text in (
        ("--size", 100_000, "candidates"),
        ("--users", 20_480, "users of a round"),
        ("--k", 100, "candidates per user"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
