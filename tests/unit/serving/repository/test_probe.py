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


def test_inputs_other_than_user_ids_are_kept_in_a_format_of_their_own(tmp_path: Path) -> None:
    probe = Probe(
        k=1,
        user_ids=["1", "2", "3"],
        exact_ids=[["a"], ["b"], ["a"]],
        inputs={"user": [7, 8, 9], "watched": [["a", "b"], ["", ""], ["b", ""]]},
    )
    write_probe(tmp_path, PROBE)
    assert json.loads((tmp_path / contract.PROBE_FILE).read_text())["format"] == 2
    write_probe(tmp_path, probe)
    assert json.loads((tmp_path / contract.PROBE_FILE).read_text())["format"] == 3
    assert read_probe(tmp_path) == probe
    assert list(probe.requests(2)) == [
        {"user": [7, 8], "watched": [["a", "b"], ["", ""]]},
        {"user": [9], "watched": [["b", ""]]},
    ]
    assert list(PROBE.requests(2)) == [{contract.USER_ID: ["1"]}]


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


@pytest.mark.parametrize("values", [{"format": 4}, {"format": 2, "k": 2}, {}])
def test_other_files_are_refused(tmp_path: Path, values: dict[str, int]) -> None:
    store(tmp_path, **values)
    with pytest.raises(RepositoryError, match=r"shortlist_probe\.json cannot be read"):
        read_probe(tmp_path)
