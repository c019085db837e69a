"""Lock files, documentation and compose file agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from shortlist.serving.servers.compose import CONFIG_FOLDER, SHARD_CONFIG, STOCK_CONFIG
from tests.support.paths import ROOT

DOCKER = ROOT / "docker"
DOCUMENTS = [(ROOT / "docs" / name).read_text() for name in ("production.md", "scaling.md")]
README = (ROOT / "README.md").read_text()
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def pins(path: Path) -> dict[str, str]:
    return dict(PIN.findall(path.read_text()))


def compose_file() -> str:
    return (DOCKER / "compose.yaml").read_text()


def test_the_images_locks_hold_what_the_projects_lock_holds() -> None:
    """`make lock` writes all of them; another version would be untested."""
    everything = pins(ROOT / "requirements.lock")
    for name in ("server", "export"):
        of_image = pins(DOCKER / f"requirements/{name}.lock")
        assert of_image
        of_image.setdefault("tensorflow", of_image.pop("tensorflow-cpu", everything["tensorflow"]))
        assert of_image.items() <= everything.items(), name


@pytest.mark.parametrize(
    ("extra", "images"),
    [
        ("embedded", ["server"]),
        ("scann", ["server"]),
        ("tensorflow-cpu", ["server"]),
        ("export", ["server", "export"]),
    ],
)
def test_an_image_has_every_package_of_its_extra(extra: str, images: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + project["optional-dependencies"][extra]
    names = {re.split(r"[^a-zA-Z0-9-]", requirement)[0] for requirement in requirements}
    assert {"grpcio", "protobuf"} < names
    assert names <= {
        name for image in images for name in pins(DOCKER / f"requirements/{image}.lock")
    }


def test_every_variable_that_the_documentation_names_exists() -> None:
    variants = compose_file() + (DOCKER / "request_log.yaml").read_text()
    known = set(re.findall(r"\$\{(SHORTLIST_\w+)", variants))
    named = {
        name for text in (*DOCUMENTS, README) for name in re.findall(r"SHORTLIST_[A-Z_]+", text)
    } - {"SHORTLIST_CASES", "SHORTLIST_MOVIELENS"}
    assert named
    assert named <= known


def test_every_service_port_and_alert_is_documented() -> None:
    production = DOCUMENTS[0]
    for service in yaml.safe_load(compose_file())["services"]:
        assert f"`{service}`" in production, service
    for port in re.findall(r"_PORT:-(\d+)\}", compose_file()):
        assert port in production, port
    rules = yaml.safe_load((DOCKER / "monitoring/rules.yaml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert "alert" not in rule or f"`{rule['alert']}`" in production, rule


def test_ports_are_on_loopback_by_default() -> None:
    services = yaml.safe_load(compose_file())["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) >= 8
    assert all(re.match(r"\$\{SHORTLIST(_TLS)?_BIND:-127\.0\.0\.1\}:", port) for port in published)


def test_the_servers_of_shards_differ_in_their_configuration_alone() -> None:
    services = yaml.safe_load(compose_file())["services"]
    serving, shard = ({*services[name]["command"]} for name in ("serving", "shard1"))
    (config,) = shard - serving
    assert config.endswith(f"/{CONFIG_FOLDER}/{SHARD_CONFIG}")
    batching = {flag for flag in serving if "batching" in flag}
    assert {flag.replace(STOCK_CONFIG, SHARD_CONFIG) for flag in serving - batching} == shard


def test_request_logs_need_the_embedded_server_and_a_folder_that_it_can_write() -> None:
    more = yaml.safe_load((DOCKER / "request_log.yaml").read_text())["services"]
    services = yaml.safe_load(compose_file())["services"]
    assert more["serving"]["image"] == services["scann"]["image"]
    (volume,) = more["serving"]["volumes"]
    assert volume.startswith("${SHORTLIST_REQUEST_LOG:?")
    assert not volume.endswith(":ro")


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 800


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "llms.txt", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        file = page.parent / name if name else page
        assert file.is_file(), name
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            words = [re.sub(r"[^\w -]", "", heading.lower()) for heading in headings]
            assert anchor in [heading.replace(" ", "-") for heading in words], anchor
