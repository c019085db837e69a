"""Probes: those of earlier releases are still read."""

import json
from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.probe import Probe, read_probe, write_probe

PROBE = Probe(k=2, user_ids=["1"], exact_ids=[["a", "b"]])


def store(path: Path, **values: object) -> None:
    file = path / contract.PROBE_FILE
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(values))


def test_a_probe_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_probe(tmp_path) is None
    write_probe(tmp_path, PROBE)
    assert read_probe(tmp_path) == PROBE


def test_a_probe_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    store(
        tmp_path,
        format=1,
        k=2,
        user_ids=["1"],
        exact_ids=[["a", "b"]],
        held_out_user_ids=["1"],
        held_out_candidate_ids=["a"],
    )
    assert read_probe(tmp_path) == PROBE


@pytest.mark.parametrize("values", [{"format": 3}, {"format": 2, "k": 2}, {}])
def test_other_files_are_refused(tmp_path: Path, values: dict[str, int]) -> None:
    store(tmp_path, **values)
    with pytest.raises(RepositoryError, match=r"shortlist_probe\.json cannot be read"):
        read_probe(tmp_path)
