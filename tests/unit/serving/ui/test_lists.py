"""The view of lists, by plain forms and links as a browser without scripts sends them."""

import html
import re

import pytest
from starlette.testclient import TestClient

from shortlist.clients.testing import FakeServer
from tests.unit.serving.ui.conftest import HOSTILE


def text_of(page: str) -> str:
    """Return the words of a page, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_first_visit_shows_a_user_at_once(page: TestClient) -> None:
    shown = text_of(page.get("/").text)
    assert "Had user 7 3 events, newest first 1 c03 odd · 1993 2017-07-16 · held out" in shown
    assert "Gets version 2" in shown
    assert " ms " in shown
    assert "c04" in shown


def test_request_carries_history_rules_exclusions_and_features(
    page: TestClient, server: FakeServer
) -> None:
    answer = page.get(
        "/",
        params=[
            ("target", "retrieval_ivf/stable"),
            ("user", "7"),
            ("history", "c00"),
            ("add", "C01"),
            ("k", "3"),
            ("exclude", "c02\r\nc03"),
            ("features", "device=mobile"),
            *[("attribute", "year"), ("mode", "min"), ("value", "1991")],
            *[("attribute", ""), ("mode", "all"), ("value", "")],
        ],
    )
    assert answer.status_code == 200
    (call,) = (call for call in server.calls if call.signature == "retrieve_by_query")
    assert call.model == "retrieval_ivf"
    assert call.history == [["c00", "c01"]]
    assert call.inputs["user_id"] == ["7"]
    assert call.inputs["exclude"] == [["c02", "c03"]]
    assert call.inputs["features"] == [["device=mobile"]]
    assert call.inputs["filter_min"] == ["year=1991.0"]
    assert call.inputs["exclude_seen"] is False
    assert "version 1" in text_of(answer.text)


@pytest.mark.parametrize(("version", "seen"), [(1, False), (2, True)])
def test_seen_candidates_are_left_out_at_first_if_the_version_keeps_them(
    page: TestClient, server: FakeServer, version: int, seen: bool
) -> None:
    page.get(f"/?target=retrieval_ivf/{version}")
    (call,) = (call for call in server.calls if call.signature == "retrieve")
    assert call.inputs["exclude_seen"] is seen


def test_answers_tell_which_event_they_are_similar_to(page: TestClient) -> None:
    shown = text_of(page.get("/?user=&k=2&history=c01").text)
    assert re.search(r"similar to Film <b>1</b> # ?\d", shown)


def test_similar_candidates_are_shown_on_demand(page: TestClient) -> None:
    shown = text_of(page.get("/?user=7&k=3&like=c02").text)
    assert "Similar to c02 version 2" in shown


def test_unknown_user_and_unknown_candidate_are_told(page: TestClient) -> None:
    shown = text_of(page.get("/?user=newcomer&k=3&like=nothing").text)
    assert "User 'newcomer' is unknown to the model" in shown
    assert "hold no interactions of this user: they sample 2 users" in shown
    assert "The corpus does not contain 'nothing'" in shown


def test_hostile_ids_stay_text_everywhere(page: TestClient) -> None:
    for address in (
        "/?user=7&k=7",
        f"/?user={HOSTILE}&k={HOSTILE}&target={HOSTILE}&like={HOSTILE}&exclude={HOSTILE}",
        f"/?user=7&k=7&history={HOSTILE}&attribute={HOSTILE}&mode=all&value={HOSTILE}",
        f"/{HOSTILE}",
    ):
        shown = page.get(address).text
        assert "alert(" in shown
        assert "<script>" not in shown
        assert 'alert("' not in shown


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("k=many", "“How many” takes a whole number above 0, got 'many'"),
        ("k=3&attribute=year&mode=min&value=new", "'year' is at least takes a number, got 'new'"),
        ("k=3&attribute=year&mode=min&value=", "a rule needs an attribute and a value"),
        ("k=3&attribute=color&mode=any&value=x", "the attribute 'color'; use genre, year"),
        ("k=3&attribute=year&mode=all&value=1990", "'year' is a number; use “is at least”"),
        ("k=3&attribute=genre&mode=min&value=1", "'genre' is not a number; use “is” or"),
        ("k=3&features=mobile", "a feature is written name=value, got 'mobile'"),
        ("k=3&target=retrieval_ivf/9", "version 9"),
        ("k=3&target=retrieval_ivf/nightly", "label 'nightly'"),
    ],
)
def test_wrong_input_is_told_in_place_and_kept(page: TestClient, query: str, problem: str) -> None:
    answer = page.get(f"/?user=7&{query}")
    (shown,) = re.findall(r'role="alert"[^>]*>([^<]*)<', answer.text)
    assert problem in html.unescape(shown)
    assert 'name="user" value="7"' in answer.text


def test_server_that_is_away_is_told_with_the_remedy(page: TestClient, server: FakeServer) -> None:
    server.close()
    answer = page.get("/?user=7&k=3")
    assert answer.status_code == 200
    assert "is not reachable" in text_of(answer.text) or "no answer" in text_of(answer.text)


def test_suggestions_come_from_the_version_that_answers(page: TestClient) -> None:
    assert page.get("/suggest/users?q=1").json() == [{"value": "12", "label": ""}]
    found = page.get("/suggest/candidates?q=ALERT&target=retrieval_ivf").json()
    assert found == [{"value": HOSTILE, "label": HOSTILE}]
    assert page.get("/suggest/passwords?q=1").status_code == 404


def test_titles_and_attributes_are_shown_offered_and_searched(page: TestClient) -> None:
    answer = page.get("/?target=retrieval_ivf&user=7&k=7&add=film <b>1</b>").text
    shown = text_of(answer)
    assert "Film <b>0</b> c00 even · 1990" in shown
    assert '<input type="hidden" name="history" value="c01">' in answer
    assert "<b>" not in answer
    assert '<option value="genre">' in answer
    assert '<option value="even">' in answer
    assert page.get("/suggest/candidates?q=film").json() == [
        {"value": "c00", "label": "Film <b>0</b>"},
        {"value": "c01", "label": "Film <b>1</b>"},
    ]


def test_page_names_only_its_own_files(page: TestClient) -> None:
    shown = page.get("/").text
    assert not re.findall(r'(?:src|href|action)="(?![/?#][^/])[^"/]', shown)
    assert " style=" not in shown
    for name in ("icon.svg", "ui.css", "ui.js"):
        assert page.get(f"/static/{name}").status_code == 200
