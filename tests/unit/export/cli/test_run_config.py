"""Configuration files: precedence, rejected values, and round trips."""

import argparse
import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.clients.cli.main import build_parser, main
from shortlist.export.cli.options.run_config import RunConfig, as_toml, from_file, run_config
from shortlist.export.cli.options.toml_file import attribute_docs
from shortlist.export.config import (
    PRESETS,
    ExportConfig,
    IvfConfig,
    ModelConfig,
    ScannConfig,
    TrainConfig,
)
from shortlist.export.data.config import DataConfig
from shortlist.export.gates.settings import GateSettings


def parse(*argv: str) -> argparse.Namespace:
    return build_parser().parse_args(["export", *argv])


def write(folder: Path, text: str) -> Path:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_schema_has_every_key_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--config-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    values = tomllib.loads(as_toml(RunConfig()))
    jsonschema.validate(values, schema, cls=jsonschema.Draft7Validator)
    properties = schema["properties"]
    defaults = {
        key: {name: entry["default"] for name, entry in value["properties"].items()}
        if "properties" in value
        else value.get("default")
        for key, value in properties.items()
    }
    assert defaults == {**values, "indexes": None, "brute_force": {}}
    with pytest.raises(jsonschema.ValidationError, match="'epoch' was unexpected"):
        jsonschema.validate({"train": {"epoch": 3}}, schema)


def test_option_overrides_file_and_file_overrides_preset(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'preset = "tutorial"\nmodel = "music"\nindexes = ["ivf"]\n'
        "[train]\nepochs = 7\nlearning_rate = 1\n[data]\nsource = 'plays.csv'\n"
        "[gates]\nmin_recall = 0.5\n[ivf]\nnum_leaves = 9",
    )
    config = run_config(
        parse("--config", str(file), "--epochs", "9", "--user-column", "listener", "--top-k", "5")
    )
    towers, train = PRESETS["tutorial"]
    assert config == RunConfig(
        preset="tutorial",
        export=ExportConfig(
            model="music",
            indexes=("ivf",),
            top_k=5,
            towers=towers,
            train=dataclasses.replace(train, epochs=9, learning_rate=1.0),
            ivf=IvfConfig(num_leaves=9),
        ),
        data=DataConfig(source="plays.csv", user_column="listener"),
        gates=GateSettings(min_recall=0.5),
    )
    assert type(config.export.train.learning_rate) is float
    other = run_config(parse("--config", str(file), "--preset", "overview"))
    assert other.preset == "overview"
    assert other.export.train.batch_size == 4096
    assert other.export.train.epochs == 7


def test_without_file_and_options_everything_is_default() -> None:
    assert run_config(parse()) == RunConfig()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SHARE = st.floats(0.01, 0.99)
COUNT = st.integers(1, 2**40)


def maybe(some: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | some


CONFIGS = st.builds(
    RunConfig,
    preset=st.sampled_from(list(PRESETS)),
    export=st.builds(
        ExportConfig,
        model=st.from_regex(r"[a-z0-9_][A-Za-z0-9_.-]{,9}", fullmatch=True),
        top_k=COUNT,
        recall=maybe(SHARE),
        indexes=st.sampled_from([("ivf",), ("scann", "brute_force")]),
        target=st.sampled_from([None, "embedded"]),
        keep_seen=st.booleans(),
        towers=st.builds(ModelConfig, temperature=SHARE, embedding_dim=COUNT),
        train=st.builds(
            TrainConfig,
            loss=st.sampled_from(["user_softmax", "in_batch_softmax"]),
            learning_rate=st.floats(1e-9, 1e9),
            sampled_candidates=maybe(COUNT),
            tensorboard=maybe(TEXT.map(Path)),
        ),
        scann=st.builds(ScannConfig, num_leaves=maybe(COUNT)),
    ),
    data=st.builds(DataConfig, source=TEXT, strip_year=st.booleans(), rating_column=maybe(TEXT)),
    gates=st.builds(
        GateSettings, min_recall=SHARE, allow=st.sampled_from([frozenset(), frozenset({"ops"})])
    ),
)


@given(config=CONFIGS)
@settings(max_examples=60, deadline=None)
def test_printed_configuration_reads_back_identically(
    config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = write(tmp_path_factory.getbasetemp(), as_toml(config))
    assert from_file(file) == config


def test_printed_configuration_names_and_explains_every_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["export", "--print-config", "--preset", "seen_kept", "--recall", "0.9"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), f"no comment above {line!r}"
    expected = run_config(parse("--preset", "seen_kept", "--recall", "0.9"))
    assert from_file(write(tmp_path, text)) == expected
    for config in (DataConfig, ExportConfig, GateSettings, ModelConfig, TrainConfig, IvfConfig):
        names = {field.name for field in dataclasses.fields(config)}
        assert set(attribute_docs(config)) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", "unknown key train.epoch; did you mean train.epochs?"),
        ("epochs = 3", "unknown key epochs; did you mean train.epochs?"),
        ("[training]\nepochs = 3", "unknown key training; did you mean train?"),
        ("[train]\nxyzzy = 3", "unknown key train.xyzzy; `shortlist export --print-config`"),
        ("[train.deep]\nx = 3", "unknown key train.deep"),
        ("train = 3", r"train must be a table, \[train\], got 3"),
        ("[[train]]\nepochs = 3", r"train must be a table, \[train\], got \[\{"),
        ("[train.epochs]\nx = 3", "train.epochs must be a whole number, got a table"),
        ("[train]\nepochs = 'ten'", 'train.epochs must be a whole number, got "ten"'),
        ("[train]\nepochs = true", "train.epochs must be a whole number, got true"),
        ("[train]\nepochs = 1.5", "train.epochs must be a whole number, got 1.5"),
        ("[train]\nlearning_rate = nan", "train.learning_rate must be a finite number, got NaN"),
        ("[train]\nloss = 'hinge'", "train.loss must be one of user_softmax, in_batch_softmax"),
        ("[train]\ntensorboard = 1", "train.tensorboard must be a string, got 1"),
        (
            "[gates]\nmax_hit_rate_drop = 0.02",
            "unknown key gates.max_hit_rate_drop; it is now gates.max_quality_drop, a share of",
        ),
        ("keep_seen = 1", "keep_seen must be true or false, got 1"),
        ("model = 1979-05-27", 'model must be a string, got "1979-05-27"'),
        ("indexes = 'ivf'", 'indexes must be an array of strings, got "ivf"'),
        ("indexes = [1]", r"indexes must be an array of strings, got \[1\]"),
        ("[train]\nepochs = 0", r"\[train\] epochs must be positive, got 0"),
        ("indexes = ['faiss']", "unknown index 'faiss'; choose from"),
        ("preset = 'fast'", "preset must be one of default, .*, got 'fast'"),
        ("[gates]\nallow = ['luck']", r"\[gates\] unknown gate 'luck'"),
        ("model = ", "is not TOML: Invalid value"),
    ],
)
def test_mistake_in_the_file_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        from_file(file)
    assert str(error.value).startswith(str(file))
    assert main(["evaluate", "--config", str(file), "--print-config"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*missing.toml: No such file"):
        from_file(tmp_path / "missing.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"model = '\xff'")
    with pytest.raises(ValueError, match=r"binary\.toml is not UTF-8, as TOML must be \(byte 9\)"):
        from_file(binary)
