"""Values of options."""

import argparse

import pytest

from shortlist.clients.cli.parser import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("7d", 604_800), (" 2w ", 1_209_600)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-1h", "1y", "h", "1h30m", "inf", "nan"])
def test_other_texts_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 30s, 15m, 1h or 7d"):
        duration(text)
