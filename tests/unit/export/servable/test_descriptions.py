"""Titles and attributes that a version carries for people."""

from pathlib import Path

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.export.data.dataset import Attribute
from shortlist.export.servable.contents import describe
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.probe import (
    Description,
    read_descriptions,
    write_descriptions,
)


def test_titles_and_attributes_come_back_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    attributes = {
        "genre": Attribute(values=(("Drama", "War"), ())),
        "year": Attribute(numbers=np.array([np.nan, 1990.5])),
    }
    write_descriptions(tmp_path, list(attributes), describe(["a", "b"], ["Alien", "b"], attributes))
    assert read_descriptions(tmp_path) == [
        Description(title="Alien", attributes={"genre": ["Drama", "War"]}),
        Description(title="", attributes={"genre": [], "year": 1990.5}),
    ]
    assert read_descriptions(tmp_path / "other") is None


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    write_descriptions(tmp_path, ["year"], [Description(attributes={"year": 1.0})])
    (tmp_path / contract.CATALOGUE_FILE).write_bytes(b"torn")
    with pytest.raises(RepositoryError, match=r"shortlist_catalogue\.jsonl\.gz cannot be read"):
        read_descriptions(tmp_path)
