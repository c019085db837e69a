"""Every view in a browser: accessible and within the window in both schemes at three widths."""

import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from shortlist.serving.ui.command import serving_page
from shortlist.serving.ui.site import Site
from tests.support.chromium import Browser, browser
from tests.unit.serving.ui.conftest import HOSTILE

pytestmark = pytest.mark.slow

VIEWS = {
    "lists": f"?user=7&k=7&history=c01&like=c02&exclude=c03&exclude={quote(HOSTILE)}"
    "&attribute=year&mode=min&value=1990",
    "wrong": "?target=retrieval_ivf/nightly&k=some",
    "compare": "compare?target=retrieval_brute_force&other=retrieval_ivf/stable&user=7&k=5",
    "catalogue": "catalogue?q=c",
    "versions": "versions",
    "version": "versions/retrieval_ivf/2",
    "rollouts": "rollouts",
}
BEYOND = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Asks for a user as a person does, without leaving the page.
ASK = """
(async () => {
  window.stayed = true;
  const input = document.getElementById("user");
  input.focus();
  input.value = "newcomer";
  input.form.requestSubmit();
  const spoken = document.getElementById("announce");
  for (let i = 0; i < 500 && !spoken.textContent; i++) await new Promise(r => setTimeout(r, 10));
  return [window.stayed, spoken.textContent.replace(/\\d+ ms/, "N ms"), document.activeElement.id,
          location.search.includes("user=newcomer"), document.body.innerText.includes("unknown")];
})()
"""
SUGGEST = """
(async () => {
  const input = document.getElementById("add");
  input.value = "c0";
  input.dispatchEvent(new Event("input", { bubbles: true }));
  const list = input.list;
  for (let i = 0; i < 500 && !list.options.length; i++) await new Promise(r => setTimeout(r, 10));
  return [...list.options].map(option => option.value);
})()
"""


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    with serving_page(site, host="127.0.0.1", port=0) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def test_views_are_accessible_and_fit_every_window(chromium: Browser, address: str) -> None:
    for view, path in VIEWS.items():
        for width in (390, 800, 1600):
            page = chromium.open(address + path, width=width)
            which = f"{view}, {width}"
            assert page.evaluate(BEYOND) == 0, which
            assert page.violations() == [], which
            chromium.prefer("dark")  # which changes colours alone
            assert page.violations("color-contrast") == [], which
            assert page.complaints() == [], which


def test_first_list_is_there_at_once_and_small(chromium: Browser, address: str) -> None:
    page = chromium.open(address, width=1280)  # fills the caches of the process, not the browser's
    chromium.call("Network.setCacheDisabled", cacheDisabled=True)
    began = time.monotonic()
    page = chromium.open(address, width=1280)
    seconds = time.monotonic() - began
    assert page.evaluate("document.querySelectorAll('.list li').length") > 5
    assert seconds < 1
    assert len(set(page.requests())) <= 4  # without a cache, the icon may be fetched twice
    assert all(request.startswith(address) for request in page.requests())
    size = "performance.getEntries().reduce((sum, part) => sum + (part.decodedBodySize ?? 0), 0)"
    assert 1000 < page.evaluate(size) < 60_000


def test_script_replaces_results_in_place_and_announces_them(
    chromium: Browser, address: str
) -> None:
    page = chromium.open(address, width=1280)
    assert page.evaluate(ASK) == [True, "7 candidates in N ms", "user", True, True]
    assert page.evaluate(SUGGEST) == ["c00", "c01", "c02", "c03", "c04"]
    assert page.complaints() == []


def test_keyboard_reaches_the_content_first(chromium: Browser, address: str) -> None:
    page = chromium.open(address, width=1280)
    for kind in ("keyDown", "keyUp"):
        chromium.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
