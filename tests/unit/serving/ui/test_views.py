"""Side by side, catalogue, versions and rollouts."""

import html
import re

import pytest
from starlette.testclient import TestClient

from shortlist.clients import contract
from shortlist.clients.testing import FakeServer
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE
from shortlist.serving.rollout.config import write_split
from shortlist.serving.rollout.history import HISTORY_FILE, History, Recorder
from tests.unit.serving.ui.conftest import HOSTILE
from tests.unit.serving.ui.test_lists import text_of


def test_two_targets_tell_what_they_share_and_what_moved(
    page: TestClient, server: FakeServer
) -> None:
    for model, ranking in (
        ("retrieval_brute_force", [("c00", 3.0), ("c01", 2.0), ("c02", 1.0)]),
        ("retrieval_ivf", [("c02", 3.0), ("c01", 2.0), ("c04", 1.0)]),
    ):
        server.models[model].rankings["7"] = ranking
    query = "target=retrieval_brute_force/stable&other=retrieval_ivf/2&user=7&k=3"
    shown = text_of(page.get(f"/compare?{query}").text)
    assert "2 of 3 in common" in shown
    first, second = re.split(r"retrieval_ivf/2 version 2", shown)
    assert "Film <b>0</b> only here c00" in first
    assert "c02 ↓ 2 lower" in first
    assert "c02 ↑ 2 higher" in second
    assert "c04 only here" in second


def test_comparison_offers_another_model_first(page: TestClient) -> None:
    shown = page.get("/compare").text
    assert '<option value="retrieval_ivf" selected>' in shown
    assert '<option value="retrieval_ivf/canary">retrieval_ivf, canary (2)</option>' in shown


def test_one_away_target_leaves_the_other(page: TestClient) -> None:
    shown = page.get("/compare?target=retrieval_ivf&other=retrieval_ivf/9&user=7&k=3").text
    assert shown.count('role="alert"') == 1
    assert "in common" not in text_of(shown)
    assert "version 2" in text_of(shown)


def test_catalogue_finds_by_part_of_an_id(page: TestClient) -> None:
    shown = page.get("/catalogue?q=SCRIPT").text
    assert "1 found of 7" in text_of(shown)
    assert html.escape(HOSTILE, quote=False).replace('"', "&#34;") in shown
    assert "No id or title contains “ nothing ”" in text_of(page.get("/catalogue?q=nothing").text)


def test_versions_have_states_labels_metrics_and_gates(page: TestClient) -> None:
    shown = text_of(page.get("/versions").text)
    assert "2 canary AVAILABLE 0.1200 hit_rate@10 (seen excluded) 1 allowed 1 passed" in shown
    assert "1 stable AVAILABLE 0.1100" in shown


def test_versions_are_listed_while_the_server_is_away(page: TestClient, server: FakeServer) -> None:
    server.close()
    shown = text_of(page.get("/versions").text)
    assert "does not answer" in shown
    assert "2 canary not loaded 0.1200" in shown


def test_version_has_metrics_by_protocol_and_gates(page: TestClient) -> None:
    shown = text_of(page.get("/versions/retrieval_ivf/2").text)
    assert "1,461 interactions of 60 users" in shown
    assert "ndcg@10 0.0500" in shown
    assert "quality allowed 0.1 0.2" in shown


def test_report_of_a_version_can_do_nothing(page: TestClient) -> None:
    report = page.get("/versions/retrieval_ivf/2/report")
    assert "the report" in report.text
    policy = report.headers["content-security-policy"]
    assert policy.endswith("sandbox")
    assert "script" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "retrieval_ivf/9",
        "retrieval_ivf/9/report",
        "nothing/1",
        "..%2Fmodels%2Fretrieval_ivf/1/report",
        ".serving/1/report",
    ],
)
def test_what_is_no_version_is_not_found(page: TestClient, path: str) -> None:
    assert page.get(f"/versions/{path}").status_code == 404


def test_report_that_links_elsewhere_is_not_shown(
    page: TestClient, repository: ModelRepository
) -> None:
    secret = repository.root.parent / "secret"
    secret.write_text("secret")
    report = repository.version_path("retrieval_ivf", 1) / contract.REPORT_FILE
    report.unlink()
    report.symlink_to(secret)
    answer = page.get("/versions/retrieval_ivf/1/report")
    assert answer.status_code == 404
    assert "has no report" in answer.text


def test_rollouts_have_labels_shares_problems_and_log(
    page: TestClient, repository: ModelRepository, server: FakeServer
) -> None:
    write_split(repository.root / CONFIG_FILE, "retrieval_ivf", 5)
    history = History(repository.root / HISTORY_FILE)
    recorder = Recorder(
        history, action="canary", name="retrieval_ivf", why=HOSTILE, servers=["a:1"]
    )
    recorder.record("start", version=2)
    recorder.record("done")
    server.models["retrieval_brute_force"].labels["stable"] = 2
    answer = page.get("/rollouts")
    shown = text_of(answer.text)
    assert "95% stable 5% canary" in shown
    assert "canary 2 stable 1" in shown
    assert "labels {'canary': 2, 'stable': 2} differ from the configuration file's" in shown
    assert re.search(r"retrieval_ivf canary 2 done \S+ <script>alert", shown)
    assert "<script>alert" not in answer.text


def test_unreadable_files_are_told_with_the_remedy(
    page: TestClient, repository: ModelRepository
) -> None:
    folder = repository.version_path("retrieval_ivf", 2)
    (folder / contract.MANIFEST_FILE).write_text("{")
    assert "is not valid JSON" in page.get("/versions").text
    (folder / contract.CORPUS_FILE).write_text("{")
    answer = page.get("/?target=retrieval_ivf&user=7&k=3")
    assert "cannot be read" in answer.text
