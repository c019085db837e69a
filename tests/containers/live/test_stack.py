"""Promises of the compose file, checked on the running containers."""

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import GrpcClient, Limits, RestClient
from shortlist.clients.errors import ServingError
from shortlist.clients.types import ModelStatus
from shortlist.serving.repository.server_config import read_config
from tests.containers.live.conftest import PROJECT, READY_SECONDS, SMALL, Running, docker
from tests.support.paths import ROOT

USERS = ["1", "2", "3"]
SERVICES = ("serving", "scann", "status", "prometheus", "proxy")
# Set by tests/containers/run.sh.
SERVING_IMAGE = os.environ.get("SHORTLIST_SERVING_IMAGE", "tensorflow/serving:2.20.0")
SERVER_IMAGE = os.environ["SHORTLIST_SERVER_IMAGE"]
EXPORT_IMAGE = os.environ["SHORTLIST_EXPORT_IMAGE"]
MODELS = ("retrieval_brute_force", "retrieval_ivf", "retrieval_scann")


def wait_until(met: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not met():
        assert time.monotonic() < deadline, f"not in {timeout:g} s: {what}"
        time.sleep(0.2)


def inspect(container: str) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return details


def healthy(running: Running, service: str) -> bool:
    state = inspect(running.container(service))["State"]
    return bool(state["Status"] == "running" and state["Health"]["Status"] == "healthy")


def shortlist(*arguments: str) -> str:
    """Run the command as a user would and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "shortlist", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("model", MODELS)
def test_both_clients_get_the_same_answers(running: Running, model: str) -> None:
    with running.client("rest", model) as rest, running.client("grpc", model) as grpc:
        over_rest = rest.retrieve(USERS, k=5)
        over_grpc = grpc.retrieve(USERS, k=5)
    assert [entry.candidate_ids for entry in over_rest] == [
        entry.candidate_ids for entry in over_grpc
    ]
    assert all(len(entry.candidate_ids) == 5 for entry in over_grpc)
    assert all(entry.version == 1 for entry in over_rest + over_grpc)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_right_that_it_does_not_need(running: Running, service: str) -> None:
    details = inspect(running.container(service))
    host = details["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert host["Memory"] > 0
    assert details["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    bindings = [entry for ports in (host["PortBindings"] or {}).values() for entry in ports]
    assert all(entry["HostIp"] == "127.0.0.1" for entry in bindings)
    models = [
        entry for entry in details["Mounts"] if entry["Destination"] == str(running.repository)
    ]
    assert all(not entry["RW"] for entry in models)


def test_ready_means_that_every_model_is_available(running: Running, tmp_path: Path) -> None:
    """An open port is not enough: a configured model is missing."""
    serving = running.container("serving")
    assert healthy(running, "serving")
    more = running.repository / ".serving/other.config"
    more.write_text(running.config.read_text() + 'model_config_list { config { name: "absent" } }')
    done = subprocess.run(
        ["docker", "exec", serving, "bash", "/etc/shortlist/ready", "--config", str(more)],
        capture_output=True,
        text=True,
        check=False,
    )
    more.unlink()
    assert done.returncode == 1
    assert "no AVAILABLE version of absent" in done.stderr


def test_a_killed_server_comes_back_with_its_labels(running: Running) -> None:
    serving = running.container("serving")
    kill = (
        "for folder in /proc/[0-9]*; do "
        "if [ ${folder#/proc/} != 1 ] "
        "&& grep -qaE 'shortlist.serving.embedded|tensorflow_model_server' $folder/cmdline "
        "&& ! grep -qa bash $folder/cmdline; then kill -9 ${folder#/proc/}; fi; "
        "done"
    )
    # The shell may end with the container before it can report success.
    subprocess.run(["docker", "exec", serving, "bash", "-c", kill], check=False)
    wait_until(lambda: inspect(serving)["RestartCount"] >= 1, "the container started again")
    wait_until(lambda: healthy(running, "serving"), "healthy again", READY_SECONDS)
    with running.client("grpc", "retrieval_ivf") as client:
        assert client.retrieve(USERS, label="stable")[0].version == 1


def test_a_version_rolls_out_and_back_through_the_polled_file(running: Running) -> None:
    # A longer training on the same split is better and passes the gates. Latency does not matter
    # here, on a machine that is busy with other work.
    running.stack.publish("sample", [*SMALL, "--epochs=2", "--index=ivf", "--allow=latency"])
    where = [
        f"--repository={running.repository}",
        f"--config={running.config}",
        f"--address={running.address('GRPC_PORT')}",
        "--polled",
        "--timeout=120",
        "--servable=retrieval_ivf",
    ]
    with running.client("grpc", "retrieval_ivf") as client:
        before = client.retrieve(USERS, label="stable")
        assert before[0].version == 1
        shortlist("canary", "2", *where)
        assert client.retrieve(USERS, label="canary")[0].version == 2
        assert client.retrieve(USERS, label="stable")[0].version == 1
        shortlist("promote", *where)
        assert client.retrieve(USERS, label="stable")[0].version == 2
        shortlist("rollback", *where)
        after = client.retrieve(USERS, label="stable")
    assert [entry.candidate_ids for entry in after] == [entry.candidate_ids for entry in before]
    assert after[0].version == 1
    labels = read_config(running.config).model_config_list.config[1].version_labels
    assert labels["stable"] == 1


def test_up_again_leaves_labels_and_versions_as_they_are(running: Running) -> None:
    """Starting the stack again does not undo rollouts."""
    before = running.config.read_text()
    running.stack.up(timeout=READY_SECONDS)
    assert running.config.read_text() == before


def test_stopping_lets_calls_in_flight_end(running: Running) -> None:
    """`docker stop` sends SIGTERM to the embedded server, which drains."""
    answers: list[int] = []
    failures: list[ServingError] = []
    ended = threading.Event()

    def ask() -> None:
        users = [str(user % 200) for user in range(4000)]
        address = running.address("SCANN_GRPC_PORT")
        with GrpcClient(
            address, model="retrieval_scann", timeout=60, limits=Limits(batch_size=4000)
        ) as client:
            while not ended.is_set():
                try:
                    answers.append(len(client.retrieve(users, k=100)))
                except ServingError as exc:
                    failures.append(exc)
                    return

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: bool(answers) or bool(failures), "the first answer")
    scann = running.container("scann")
    docker("stop", "--time=20", scann)
    ended.set()
    asking.join(timeout=60)
    state = inspect(scann)["State"]
    docker("start", scann)
    assert answers, failures
    # 137 would mean that it was killed.
    assert state["ExitCode"] in (0, 143), state
    wait_until(lambda: healthy(running, "scann"), "healthy again", READY_SECONDS)


def query_prometheus(running: Running, expression: str) -> list[Any]:
    address = running.address("PROMETHEUS_PORT")
    parameters = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{parameters}", timeout=10) as page:
        result: list[Any] = json.load(page)["data"]["result"]
        return result


def test_prometheus_scrapes_all_and_every_panel_has_data(running: Running) -> None:
    for model in MODELS:
        for transport in ("rest", "grpc"):
            with running.client(transport, model) as client:
                client.retrieve(USERS)
    wait_until(
        lambda: len(query_prometheus(running, 'up{job=~"serving|scann|status"} == 1')) == 3,
        "three targets up",
    )
    for query in panel_queries():
        wait_until(lambda query=query: bool(query_prometheus(running, query)), query, 90)  # type: ignore[misc]
    [memory] = query_prometheus(running, "shortlist_server_resident_memory_bytes")
    assert 100e6 < float(memory["value"][1]) < 4e9
    [label] = query_prometheus(
        running, 'shortlist_label_version{model="retrieval_ivf",label="stable"}'
    )
    assert label["value"][1] == "1"


def panel_queries() -> list[str]:
    """Return the queries of the dashboard for all jobs and models, with rates over a minute.

    Those of `shortlist monitor`, which is no part of the stack, are left out.
    """
    dashboards = ROOT / "docker/monitoring/grafana/dashboards"
    dashboard = json.loads((dashboards / "shortlist.json").read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    return [
        re.sub(r"\$__rate_interval", "1m", re.sub(r"\$(job|model)\b", ".*", expression))
        for expression in expressions
        if not expression.startswith("shortlist_monitor_")
    ]


def test_the_proxy_needs_a_token_and_refuses_reloads(running: Running) -> None:
    rest, grpc = running.address("TLS_REST_PORT"), running.address("TLS_GRPC_PORT")
    allowed = {"authorization": running.token()}
    for headers in (None, {"authorization": "Bearer wrong"}):
        for client in (
            RestClient(f"https://{rest}", tls=running.tls(), headers=headers),
            GrpcClient(grpc, tls=running.tls(), headers=headers),
        ):
            with client, pytest.raises(ServingError, match=r"401|(?i:unauthenticated)"):
                client.retrieve(USERS)
    swapped = {"authorization": running.token().swapcase().replace("bEARER", "Bearer")}
    with (
        RestClient(f"https://{rest}", tls=running.tls(), headers=swapped) as client,
        pytest.raises(ServingError, match=r"401|(?i:unauthenticated)"),
    ):
        client.retrieve(USERS)
    with (
        RestClient(f"https://{rest}", tls=running.tls(), headers=allowed) as over_rest,
        GrpcClient(grpc, tls=running.tls(), headers=allowed) as over_grpc,
    ):
        first, second = over_rest.retrieve(USERS), over_grpc.retrieve(USERS)
        assert [entry.candidate_ids for entry in first] == [entry.candidate_ids for entry in second]
        status = over_grpc.status(model="retrieval_ivf")
        assert isinstance(status, ModelStatus)


@pytest.mark.parametrize(
    "path",
    [
        "//v1%2fmodels/monitoring/prometheus/metrics",
        "//v1%2fmodels/x/../monitoring/prometheus/metrics",
        "/v1/models/../../monitoring/prometheus/metrics",
        "/v1/models/%2e%2e/%2e%2e/monitoring/prometheus/metrics",
        "/v1/models//retrieval_ivf",
        "/docs",
        "/v1/models/../../openapi.json",
    ],
)
def test_no_path_leads_through_the_proxy_to_metrics_or_docs(running: Running, path: str) -> None:
    """The proxy and the server read each of these paths differently."""
    host, port = running.address("TLS_REST_PORT").split(":")
    context = ssl.create_default_context(cafile=str(running.tls().ca))
    headers = {"Authorization": running.token()}
    for target, status in ((path, (400, 404)), ("/v1/models/retrieval_ivf", (200,))):
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
        connection.request("GET", target, headers=headers)
        assert connection.getresponse().status in status
        connection.close()


def test_the_server_image_can_replace_the_stock_image(running: Running) -> None:
    """MODEL_NAME and MODEL_BASE_PATH, with the health check and entry point of the image."""
    name = docker(
        "run",
        "--detach",
        "--read-only",
        f"--label=com.docker.compose.project={PROJECT}-alone",
        f"--volume={running.repository}:/models:ro",
        "--env=MODEL_NAME=retrieval_scann",
        "--network=none",
        SERVER_IMAGE,
    )
    try:
        wait_until(
            lambda: inspect(name)["State"]["Health"]["Status"] == "healthy",
            "healthy",
            READY_SECONDS,
        )
        assert inspect(name)["Config"]["User"] == "65532:65532"
    finally:
        docker("rm", "--force", name)


# Runs in the server's container: what takes gigabytes unless it is refused, then a usual request.
GREEDY = """
import gzip, json, urllib.error, urllib.request
import grpc
from shortlist.clients import RestClient
from shortlist.clients.wire import messages

MODEL = "retrieval_brute_force"
def post(body, **headers):
    url = f"http://127.0.0.1:8501/v1/models/{MODEL}:predict"
    try:
        request = urllib.request.Request(url, body, headers)
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code

with grpc.insecure_channel("127.0.0.1:8500") as channel:
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for rows in (250_000, 10**9):
        shape = messages.TensorShapeProto(dim=[messages.TensorShapeProto.Dim(size=rows)])
        tensor = messages.TensorProto(dtype=messages.DataType.DT_STRING, tensor_shape=shape)
        spec = messages.ModelSpec(name=MODEL)
        request = messages.PredictRequest(model_spec=spec, inputs={"user_id": tensor})
        try:
            call(request.SerializeToString(), timeout=60)
            print("answered")
        except grpc.RpcError as error:
            print(error.code().name)
print(post(json.dumps({"inputs": {"user_id": ["x"] * 250_000}}).encode()))
packed = gzip.compress(b'{"instances":[' + b"[]," * 33_000_000 + b"[]]}")
print(post(packed, **{"Content-Encoding": "gzip"}))
with RestClient("127.0.0.1:8501", model=MODEL, timeout=60) as client:
    print(len(client.retrieve(["1"], k=5)[0].candidate_ids))
"""


def test_a_greedy_request_is_refused_within_one_gigabyte(running: Running) -> None:
    name = docker(
        *("run", "--detach", "--read-only", "--network=none", "--cap-drop=ALL"),
        *("--security-opt=no-new-privileges", "--memory=1g", "--memory-swap=1g"),
        f"--label=com.docker.compose.project={PROJECT}-greedy",
        f"--volume={running.repository}:/models:ro",
        "--env=MODEL_NAME=retrieval_brute_force",
        SERVER_IMAGE,
    )
    try:
        wait_until(
            lambda: inspect(name)["State"]["Health"]["Status"] == "healthy",
            "healthy",
            READY_SECONDS,
        )
        answers = docker("exec", name, "/opt/shortlist/bin/python", "-c", GREEDY).split()
        assert answers[:2] == ["INVALID_ARGUMENT", "INVALID_ARGUMENT"]
        assert answers[2:] == ["429", "429", "5"]
        state = inspect(name)["State"]
        assert (state["Running"], state["OOMKilled"]) == (True, False)
    finally:
        docker("rm", "--force", name)


@pytest.mark.parametrize("image", [SERVER_IMAGE, EXPORT_IMAGE])
def test_an_image_holds_no_build_tools(image: str) -> None:
    script = (
        "for tool in gcc cc make ld strip git; do ! command -v $tool || exit 1; done; "
        "for venv in /opt/shortlist /opt/app; do ! ls $venv/bin/pip $venv/bin/uv 2>/dev/null "
        "|| exit 1; done; ! ls -d /build /src /wheels /training 2>/dev/null"
    )
    docker("run", "--rm", "--network=none", "--entrypoint=bash", image, "-c", script)


def test_images_are_as_small_as_the_documentation_says() -> None:
    sizes = {
        image: int(docker("image", "inspect", "--format={{.Size}}", image))
        for image in (SERVER_IMAGE, EXPORT_IMAGE)
    }
    assert sizes[SERVER_IMAGE] < 1.5e9
    assert sizes[EXPORT_IMAGE] < 2.3e9


def test_serve_in_the_foreground_uses_the_same_file(running: Running, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    command = [
        *(sys.executable, "-m", "shortlist", "serve", "--server=docker", "--json"),
        *(f"--repository={running.repository}", "--port=0", "--rest-port=0"),
        *("--servable=retrieval_brute_force", f"--image={SERVING_IMAGE}"),
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output) as server,
    ):
        try:
            assert server.stdout is not None
            served = json.loads(server.stdout.readline() or log.read_text())
            with GrpcClient(served["grpc"], model="retrieval_brute_force", timeout=20) as client:
                assert len(client.retrieve(USERS, k=3)[0].candidate_ids) == 3
        finally:
            server.terminate()
            server.wait(timeout=180)
    project = "shortlist-" + "-".join(served[api].rpartition(":")[2] for api in ("grpc", "rest"))
    assert docker("ps", "--all", "--quiet", f"--filter=name={project}") == ""
