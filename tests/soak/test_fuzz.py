"""A short form of `make fuzz`."""

import pytest

from tests.soak.fuzz import fuzz


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_mutated_requests_do_no_harm() -> None:
    assert fuzz(4000, seed=4) == []
