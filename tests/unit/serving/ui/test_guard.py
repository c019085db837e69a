"""A page without login answers its own host alone, and binds the browser to its own files."""

import pytest
from starlette.testclient import TestClient

from shortlist.serving.ui.app import create_app
from shortlist.serving.ui.site import Site


@pytest.mark.parametrize(
    ("bound", "named", "status"),
    [
        ("127.0.0.1", "localhost:8503", 200),
        ("127.0.0.1", "[::1]:9", 200),
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.0.0.1", "rebound.example:8503", 403),
        ("127.0.0.1", "192.0.2.7", 403),
        ("127.0.0.1", "localhost.example", 403),
        ("127.0.0.1", "127.0.0.1.example", 403),
        ("127.0.0.1", "[::1", 403),
        ("127.0.0.1", "", 403),
        ("0.0.0.0", "192.0.2.7:8503", 200),
        ("0.0.0.0", "rebound.example", 403),
        ("page.example", "PAGE.example", 200),
    ],
)
def test_host_must_be_ours(site: Site, bound: str, named: str, status: int) -> None:
    client = TestClient(create_app(site, host=bound))
    assert client.get("/static/ui.css", headers={"host": named}).status_code == status


def test_other_sites_cannot_ask_but_may_link(page: TestClient) -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    assert page.get("/", headers={**foreign, "sec-fetch-mode": "no-cors"}).status_code == 403
    assert page.get("/", headers={**foreign, "sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_but_reading(page: TestClient, method: str) -> None:
    assert page.request(method, "/").status_code == 405


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/ui.js"])
def test_browser_runs_nothing_from_elsewhere(page: TestClient, path: str) -> None:
    headers = page.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
