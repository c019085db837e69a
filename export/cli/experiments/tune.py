"""`shortlist tune`."""

import argparse
import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.clients.cli.output import number, table, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser, duration
from shortlist.clients.errors import ShortlistError
from shortlist.export.cli.options import (
    add_config_arguments,
    add_data_arguments,
    add_train_arguments,
)
from shortlist.export.cli.options.run_config import RunConfig, as_toml, check_output, run_config
from shortlist.export.cli.options.toml_file import read_toml
from shortlist.export.search.space import DEFAULT_SPACE, read_space, with_settings
from shortlist.serving.installed import missing_package
from shortlist.serving.repository.files import write_atomically

if TYPE_CHECKING:
    from shortlist.export.progress import Progress
    from shortlist.export.search.study import SearchResult, StudyConfig

__all__ = ["add_tune", "tune"]

_METRIC = "NDCG on the validation part"  # the mean of that at 10 and at 100


def add_tune(verbs: Parsers) -> None:
    """Add `tune`."""
    parser = add_parser(
        verbs,
        "tune",
        "Search for better settings of a training.",
        details="Trains with different settings, which Optuna chooses by the trials so far, and "
        "writes the best ones as a configuration file. The validation part alone decides; the "
        "held-out part stays unseen until `export` or `evaluate` measures the result.",
        example="shortlist tune --data sample --trials 10 --timeout 20m --output tuned.toml",
        run="shortlist.export.cli.experiments.tune:tune",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="data to train on; the same as --data FILE"
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--trials",
        type=int,
        default=30,
        metavar="N",
        help="number of trials, those of earlier runs with the same --storage included "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=duration,
        metavar="TIME",
        help="time after which no further trial begins, such as 20m (default: none)",
    )
    group.add_argument(
        "--space",
        type=Path,
        metavar="FILE.toml",
        help="settings to search: lists of values, or {low = …, high = …, log = true} (default: "
        + ", ".join(DEFAULT_SPACE)
        + ")",
    )
    group.add_argument(
        "--storage",
        metavar="FILE_OR_URL",
        help="SQLite file or database for the trials, such as tune.db; the same command then "
        "continues the search (default: none)",
    )
    group.add_argument(
        "--study", default="shortlist", metavar="NAME", help="name in it (default: %(default)s)"
    )
    group.add_argument(
        "--output",
        type=Path,
        default=Path("tuned.toml"),
        metavar="FILE.toml",
        help="configuration file for `export --config`, rewritten after each better trial "
        "(default: %(default)s)",
    )
    add_config_arguments(parser)
    add_data_arguments(parser)
    add_train_arguments(parser)


def tune(args: argparse.Namespace) -> int:
    """Search for better settings of a training."""
    if args.files:
        args.data_source = [*args.files, *(args.data_source or ())]
    config = run_config(args)
    if args.print_config:
        write(as_toml(config))
        return 0
    check_output(args.output, "--output")
    space = DEFAULT_SPACE
    if args.space is not None:
        try:
            space = read_space(read_toml(args.space), config.export)
        except ValueError as exc:
            raise ValueError(f"{args.space}: {exc}") from exc
    problem = missing_package(("optuna",), extra="tune")
    if problem is not None:
        raise ShortlistError(problem)
    from shortlist.export.cli.console import ConsoleProgress, load_data

    dataset = load_data(config.data)
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.search.study import StudyConfig, search

    storage = args.storage
    if storage is not None and "://" not in storage:
        storage = f"sqlite:///{storage}"
    study = StudyConfig(trials=args.trials, timeout=args.timeout, storage=storage, name=args.study)
    with ConsoleProgress() as console:
        result = search(
            dataset,
            config.export,
            space,
            study,
            progress=console,
            finished=_Reporter(config, study, args.output, console),
        )
    _write_best(config, result, args.output)
    if args.json:
        best = result.best
        write_json({"best": best, "output": str(args.output), "trials": result.outcomes})
    else:
        write(_as_text(result, args.output))
    return 0


class _Reporter:
    """Writes a line for each trial, and the best settings so far to the output file."""

    def __init__(
        self, config: RunConfig, study: "StudyConfig", output: Path, console: "Progress"
    ) -> None:
        self._config, self._study, self._output, self._console = config, study, output, console
        self._began = time.monotonic()

    def __call__(self, result: "SearchResult") -> None:
        last, best, done = result.outcomes[-1], result.best, len(result.outcomes)
        told = last.problem or (last.state if last.score is None else f"{_METRIC} {last.score:.4f}")
        if best is not None and best.number != last.number:
            told += f" (best {best.score:.4f}, trial {best.number})"
        left = self._study.trials - done
        if left > 0 and (remaining := self._remaining(done - result.earlier, left)):
            told += f"; about {remaining} left"
        self._console.step_finished(f"trial {last.number}", told, last.seconds)
        if best is not None and best.number == last.number:
            _write_best(self._config, result, self._output)

    def _remaining(self, done: int, left: int) -> str:
        """Return the time that is left by the trials so far; empty if none is."""
        passed = time.monotonic() - self._began
        seconds = passed / done * left
        if self._study.timeout is not None:
            seconds = min(seconds, max(self._study.timeout - passed, 0.0))
        if not seconds:
            return ""
        return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _write_best(config: RunConfig, result: "SearchResult", output: Path) -> None:
    """Write the configuration of the best trial."""
    assert result.best is not None
    export = with_settings(config.export, result.best.settings)
    text = as_toml(dataclasses.replace(config, export=export))
    write_atomically(output, f"{text}\n")


def _as_text(result: "SearchResult", output: Path) -> str:
    first, best = result.outcomes[0], result.best
    assert best is not None
    states = [one.state for one in result.outcomes]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    if result.earlier:
        counts.append(f"{result.earlier} of earlier runs")
    rows = [["setting", f"trial {first.number}", f"best, trial {best.number}"]]
    rows += [
        [key, _value(first.settings.get(key)), _value(value)]
        for key, value in best.settings.items()
    ]
    rows.append([_METRIC, number(first.score, ".4f"), number(best.score, ".4f")])
    return "\n".join(
        [
            f"{len(states)} trials: {', '.join(counts)}",
            "",
            table(rows),
            "",
            f"written to {output}; train and publish with it:",
            f"  shortlist export --config {shlex.quote(str(output))} --repository models",
        ]
    )


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
