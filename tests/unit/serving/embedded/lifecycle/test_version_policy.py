import pytest

from shortlist.serving.embedded.lifecycle.version_policy import (
    AllVersions,
    LatestVersions,
    SpecificVersions,
    VersionPolicy,
    choose_versions,
)

NAMES = ["1", "2", "10", "latest", "assets", "3.5", ".publishing-11"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (LatestVersions(), [10]),
        (LatestVersions(num_versions=2), [10, 2]),
        (LatestVersions(num_versions=0), [10]),
        (AllVersions(), [10, 2, 1]),
        (SpecificVersions(versions=frozenset({2, 7})), [2]),
        (SpecificVersions(versions=frozenset()), []),
    ],
)
def test_policy_chooses_among_integer_names(policy: VersionPolicy, expected: list[int]) -> None:
    assert list(choose_versions(NAMES, policy)) == expected


@pytest.mark.parametrize(
    ("name", "version"),
    [("00003", 3), ("+4", 4), ("-5", -5), (" 6", 6), ("9223372036854775807", 2**63 - 1)],
)
def test_unusual_integer_names_are_versions(name: str, version: int) -> None:
    assert choose_versions([name], AllVersions()) == {version: name}


@pytest.mark.parametrize(
    "name", ["", "1.0", "1a", "0x1", "1_0", "9223372036854775808", "٣", "--1", "9" * 5000]
)
def test_other_names_are_not_versions(name: str) -> None:
    assert choose_versions([name], AllVersions()) == {}


def test_policy_decides_between_two_names_of_one_version() -> None:
    assert choose_versions(["7", "007"], LatestVersions()) == {7: "7"}
    assert choose_versions(["7", "007"], AllVersions()) == {7: "007"}
