"""Parsers of the verbs that `export` adds to the `shortlist` command."""

from argparse import BooleanOptionalAction
from pathlib import Path

from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.export.cli.bench import add_benches
from shortlist.export.cli.corpus.parsers import add_corpus
from shortlist.export.cli.experiments.track import add_track
from shortlist.export.cli.experiments.tune import add_tune
from shortlist.export.cli.monitor import add_monitor
from shortlist.export.cli.options import (
    add_config_arguments,
    add_data_arguments,
    add_gate_arguments,
    add_model_arguments,
    add_repository,
    add_target_argument,
    add_train_arguments,
)
from shortlist.export.cli.own import add_own
from shortlist.export.cli.recommend import add_recommend
from shortlist.export.cli.replay import add_replay
from shortlist.export.config import BASELINES
from shortlist.serving.servers.kinds import ServerKind

__all__ = ["add_benches", "add_commands"]

_CLI = "shortlist.export.cli"
_FOUND = " (default: the embedded server for ScaNN's ops, else a stock one)"


def add_commands(verbs: Parsers) -> None:
    """Add this package's verbs; imports nothing heavy."""
    _add_export(verbs)
    _add_demo(verbs)
    _add_verify(verbs)
    _add_publish(verbs)
    add_own(verbs)
    add_recommend(verbs)
    _add_evaluate(verbs)
    _add_inspect(verbs)
    add_monitor(verbs)
    add_replay(verbs)
    add_track(verbs)
    add_tune(verbs)
    add_corpus(verbs)


def _add_export(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "export",
        "Train a model, index it, and publish its servables.",
        details="Publishes one servable per index, all with the same new version number. If "
        "TF_CONFIG names several workers, the same command on each of them trains with "
        "MultiWorkerMirroredStrategy, and the first one publishes.",
        example="shortlist export --data sample --repository models --epochs 3",
        run=f"{_CLI}.export:export",
    )
    add_config_arguments(parser)
    add_data_arguments(parser)
    add_train_arguments(parser)
    group = add_model_arguments(parser)
    group.add_argument(
        "--without-seen",
        action="store_true",
        help="omit users' training interactions from the servables, but for a sample that the "
        "gates need: smaller, but requests cannot exclude them",
    )
    group.add_argument(
        "--without-training-state",
        action="store_true",
        help="omit the state of the training, with which --warm-start goes on: three times the "
        "learned tables, stored once for all servables of an export",
    )
    group.add_argument("--baselines", action="store_true", help="add all baselines to the report")
    group.add_argument(
        "--allow-again",
        action="store_true",
        help="let candidates back in that were removed with `shortlist remove`",
    )
    group.add_argument(
        "--track",
        metavar="mlflow[:EXPERIMENT]",
        help="record the publication in an experiment tracker, as `shortlist track` does",
    )
    parser.add_argument(
        "--warm-start",
        metavar="VERSION",
        help="go on from the training of a published version on data that has grown, such as "
        "retrieval_ivf/stable or models/retrieval_ivf/12: a fraction of the time, and embeddings "
        "stay comparable",
    )
    group = parser.add_argument_group("interruption")
    group.add_argument(
        "--resume",
        action="store_true",
        help="resume an interrupted training of the same configuration and data, with the same "
        "result",
    )
    group.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="folder for the state of the training, written about every 30 s and removed after "
        "publication (default: .training-<model> in the model repository)",
    )
    add_gate_arguments(parser)


def _add_demo(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "demo",
        "Train, publish, serve and query in one go, on one machine.",
        details="Queries the servables over REST and gRPC for two users, shows the answers next "
        "to what the users liked, and on a terminal keeps the server running with a page to look "
        "at. If a MovieLens release cannot be downloaded, synthetic data is used.",
        example="shortlist demo --data sample",
        run=f"{_CLI}.demo:demo",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help="model repository, created if missing (default: demo-output/<data>/models, one for "
        "each data set)",
    )
    parser.add_argument(
        "--server",
        default=ServerKind.EMBEDDED.value,
        choices=[kind.value for kind in ServerKind],
        help="server: embedded, the stock container image, or tensorflow_model_server on PATH "
        "(default: %(default)s)",
    )

    parser.add_argument(
        "--stay",
        action=BooleanOptionalAction,
        help="keep the server and a page running until Ctrl-C (default: on a terminal only)",
    )


def _add_verify(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "verify",
        "Run the gates on a version again.",
        details="Compares it with the live version of its repository.",
        example="shortlist verify models/retrieval_ivf/1",
        run=f"{_CLI}.gates:verify",
    )
    parser.add_argument(
        "path",
        type=Path,
        metavar="VERSION_DIR",
        help="<repository>/<model>/<version>, or <model>/<version> in --repository; a label such "
        "as stable stands for its version",
    )
    add_repository(parser)
    parser.add_argument(
        "--queries",
        type=Path,
        metavar="LOG",
        help="request log; the gate `golden` also asks up to 200 of its requests, which must not "
        "fail",
    )
    add_gate_arguments(parser)
    add_target_argument(parser, note=_FOUND)


def _add_publish(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "publish",
        "Publish an existing SavedModel through the gates.",
        details="Copies it into a model repository under the next version number. If Shortlist did "
        "not export it, as with an index of TensorFlow Recommenders, it is asked a few queries "
        "first, and its answers are recorded for the gates and for rollouts.",
        example="shortlist publish staging/retrieval_ivf/1 --name retrieval_ivf "
        "--repository models",
        run=f"{_CLI}.gates:publish",
    )
    parser.add_argument("path", type=Path, metavar="SAVED_MODEL_DIR")
    parser.add_argument("--name", required=True, metavar="MODEL", help="model name")
    parser.add_argument(
        "--repository",
        default="models",
        metavar="DIR_OR_URL",
        help="model repository: a folder, or a URL such as gs://bucket/models (default: "
        "%(default)s)",
    )
    group = parser.add_argument_group("a SavedModel that Shortlist did not export")
    group.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help='queries to record the answers to, one per line, such as {"user_id": "42"}, or a '
        "request log, which a version from Shortlist must answer, too (default: some values of "
        "the model's own vocabulary and an unknown one)",
    )
    for option, what in (
        ("signature", "signature that retrieves candidates"),
        ("input", "its input with user ids"),
        ("ids", "its output with candidate ids"),
        ("scores", "its output with scores"),
    ):
        group.add_argument(
            f"--{option}", metavar="NAME", help=f"{what} (default: found from types and shapes)"
        )
    add_gate_arguments(parser)
    add_target_argument(parser, note=_FOUND)


def _add_evaluate(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "evaluate",
        "Measure a recipe, or published versions, on held-out interactions.",
        details="Trains by a recipe and publishes nothing; --baselines adds simple models to "
        "compare with. With --version-dir, queries published versions instead, on the split that "
        "their manifests record: brute force gives the manifest's numbers; candidates that an "
        "approximate index misses count as misses.",
        example="shortlist evaluate --data sample --epochs 5 --baselines",
        run=f"{_CLI}.evaluate:evaluate",
    )
    add_config_arguments(parser)
    add_data_arguments(parser)
    add_train_arguments(parser)
    parser.add_argument(
        "--version-dir",
        action="append",
        metavar="DIR",
        help="<repository>/<model>/<version> to measure instead of a recipe, or <model>/<version> "
        "in --repository; a label such as stable stands for its version; repeatable",
    )
    add_repository(parser)
    parser.add_argument(
        "--baselines", action="store_true", help=f"measure {', '.join(BASELINES)}, too"
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="print all metrics with intervals, and hit rates by users' activity, too",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples for 95%% intervals (default: %(default)s)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write an HTML report on the training, compared with popularity",
    )


def _add_inspect(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "inspect",
        "Show what data holds and what is wrong with it, without training.",
        details="Reads it as `export` does: columns and what they are read as, all faulty rows, "
        "activity of users and popularity of candidates, repeats, the split that an export would "
        "make, and advice on its options. The status is 1 if an export would refuse the data.",
        example="shortlist inspect plays.csv --candidates tracks.csv --output plays.html",
        run=f"{_CLI}.inspect:inspect",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="data to inspect; the same as --data FILE"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.html", help="write an HTML page with plots, too"
    )
    add_config_arguments(parser)
    add_data_arguments(parser)
    parser.set_defaults(preset=None)
