"""Words of texts as features of candidates."""

from pathlib import Path

import numpy as np
import pytest

from shortlist.export.data import DataConfig, DataError, load
from shortlist.export.data.sources.words import words_of
from shortlist.export.towers.features import CandidateFeatures

CATALOGUE = "item,name,description,price\na,Red chair,,1\nb,Red table,Oak wood,2\nc,Lamp,OAK,3\n"


def config(folder: Path, *, catalogue: bool = True, **options: object) -> DataConfig:
    (folder / "events.csv").write_text("user,item\n1,a\n1,b\n2,c\n")
    (folder / "items.csv").write_text(CATALOGUE)
    if catalogue:
        options["candidates_file"] = str(folder / "items.csv")
    return DataConfig(source=str(folder / "events.csv"), **options)  # type: ignore[arg-type]


def test_words_become_features_but_no_filters(tmp_path: Path) -> None:
    dataset = load(config(tmp_path, text_columns=("description", "name")))
    assert set(dataset.attributes) == {"price"}
    assert dataset.words["description"].values == ((), ("oak",), ("oak",))
    assert dataset.words["name"].values == (("red",), ("red",), ())
    assert dataset.titles == ("Red chair", "Red table", "Lamp")
    names = CandidateFeatures(dataset).names
    assert names[-2:] == ["description=oak", "name=red"]


def test_titles_of_any_source_have_words() -> None:
    dataset = load(
        DataConfig(
            source="sample", sample_users=50, sample_interactions=2000, text_columns=("title",)
        )
    )
    assert dataset.words["title"].values is not None
    assert any(dataset.words["title"].values)


def test_words_are_found_in_any_script_and_case() -> None:
    texts = ["Été à Paris, 1998!", "ÉTÉ 東京", "東京 1998", "", "unique"]
    assert [set(words) for words in words_of(texts)] == [
        {"été", "1998"},
        {"été", "東京"},
        {"東京", "1998"},
        set(),
        set(),
    ]
    assert words_of([]) == ()


def test_words_of_many_candidates_tell_nothing() -> None:
    texts = [f"the {'cat' if row % 10 == 0 else 'w'}{row % 7 == 0}" for row in range(100)]
    assert not any("the" in words for words in words_of(texts))


def test_a_text_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"items.csv has no text 'descr'.* title, description, price"
    ):
        load(config(tmp_path, text_columns=("descr",)))


def test_a_text_needs_a_catalogue(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name it with --candidates"):
        load(config(tmp_path, catalogue=False, text_columns=("description",)))
    assert np.all(load(config(tmp_path, catalogue=False)).user_positions == [0, 0, 1])
