"""Publications that take less."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def no_server_gates() -> Iterator[None]:
    """Leave out the gates `server` and `latency`: half of the time of a publication."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortlist.export.gates.run.run_server_gates", lambda subjects, settings: {})
        yield
