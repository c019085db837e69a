"""The data options of the command."""

import argparse
import dataclasses
import subprocess
import sys

import pytest

from shortlist.export.cli.options import add_data_arguments, data_config
from shortlist.export.data import DataConfig
from shortlist.export.data.config import option_of


def parse(*argv: str) -> DataConfig:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    return data_config(parser.parse_args(argv))


def test_no_option_gives_the_defaults() -> None:
    assert parse() == DataConfig()


def test_every_option_reaches_the_configuration() -> None:
    assert parse(
        *("--data", "own.csv", "--candidate-id", "movie_id", "--strip-year", "--data-dir", "d"),
        *("--user-column", "u", "--candidate-column", "c", "--rating-column", "r"),
        *("--timestamp-column", "t", "--title-column", "n", "--candidates", "c.csv"),
        *("--sample-seed", "1", "--sample-users", "2", "--sample-candidates", "30"),
        *("--sample-interactions", "4"),
    ) == DataConfig(
        source="own.csv",
        candidate_id="movie_id",
        strip_year=True,
        data_dir="d",
        user_column="u",
        candidate_column="c",
        rating_column="r",
        timestamp_column="t",
        title_column="n",
        candidates_file="c.csv",
        sample_seed=1,
        sample_users=2,
        sample_candidates=30,
        sample_interactions=4,
    )


def test_every_field_knows_its_option() -> None:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    options = {
        action.dest: action.option_strings
        for action in parser._actions
        if action.dest.startswith("data_")
    }
    fields = {field.name for field in dataclasses.fields(DataConfig)} - {"more_sources"}
    assert options == {f"data_{field}": [option_of(field)] for field in fields}


def test_options_override_the_callers_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    args = parser.parse_args(["--sample-users", "5"])
    config = data_config(args, source="sample", sample_users=7, sample_seed=3)
    assert config == DataConfig(source="sample", sample_users=5, sample_seed=3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sample-users", "0"], "sample_users must be at least 1, got 0"),
        (["--data", ""], "source is empty; give `sample`"),
        (["--user-column", ""], "user_column is empty"),
        (["--sample-seed", "-1"], "sample_seed must be at least 0, got -1"),
    ],
)
def test_value_out_of_range_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(*argv)


def test_options_need_neither_numpy_nor_tensorflow() -> None:
    """The command's parser is built in an installation of the clients alone, too."""
    code = (
        "import sys, shortlist.export.cli.options; "
        "heavy = {'numpy', 'pandas', 'pyarrow', 'tensorflow', 'tensorflow_datasets'}; "
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
