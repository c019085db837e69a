#!/usr/bin/env bash
# make test-containers: start an engine if none runs, build stand-ins for the registry's images and
# our own images, test the running stack, and remove everything.
#
# SHORTLIST_CONTAINERS_IMAGES=registry pulls the real images instead; this needs a registry.
set -euo pipefail
cd "$(dirname "$0")/../.."

LIMIT=${SHORTLIST_CONTAINERS_LIMIT:-1080}  # seconds until everything is removed
cache=.cache/containers
here=tests/containers

tests() {
    local name
    export SHORTLIST_SERVER_IMAGE=shortlist-test/server:latest
    export SHORTLIST_EXPORT_IMAGE=shortlist-test/export:latest
    if [ "${SHORTLIST_CONTAINERS_IMAGES:-}" != registry ]; then
        for name in python serving proxy prometheus; do
            export "SHORTLIST_${name^^}_IMAGE=shortlist-standin/$name:latest"
        done
        $here/images.sh base $cache
        step "base image"
    fi
    $here/images.sh ours
    step "images built"
    if [ "${SHORTLIST_CONTAINERS_IMAGES:-}" != registry ]; then
        $here/images.sh standins
        step "stand-ins built"
    fi
    docker images --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep '^shortlist-test/'
    SHORTLIST_CONTAINERS=1 .venv/bin/pytest -q -p no:xdist -x $here/live
    step "tests passed"
}
step() { printf 'test-containers: %s, %s s so far\n' "$1" "$SECONDS"; }

if [ "${1:-}" = tests ]; then
    tests
    exit 0
fi

# One run at a time per machine: engines share its firewall.
exec 9>"${TMPDIR:-/tmp}/shortlist-containers.lock"
flock --timeout "$LIMIT" 9 || { echo "test-containers: another run holds the machine" >&2; exit 1; }
state=$(mktemp -d "${TMPDIR:-/tmp}/shortlist-containers.XXXXXX")

# Not under the time limit, so that it always completes.
cleanup() {
    local status=$?
    trap - EXIT TERM INT
    if [ -n "${tests_pid:-}" ] && kill "$tests_pid" 2>/dev/null; then wait "$tests_pid" || true; fi
    if [ -n "${DOCKER_ANSWERED:-}" ] && [ ! -f "$state/dockerd.pid" ]; then
        # The engine was running before: remove only what we put into it.
        docker ps --all --quiet --filter label=com.docker.compose.project=shortlist-test \
            | xargs --no-run-if-empty docker rm --force >/dev/null
        docker network rm shortlist-test_default >/dev/null 2>&1 || true
        docker volume rm shortlist-test_prometheus shortlist-test_grafana >/dev/null 2>&1 || true
        $here/images.sh remove
    fi
    $here/engine.sh stop "$state" 9>&- || true
    rm -rf "$state"
    exit $status
}
trap cleanup EXIT
trap 'exit 143' TERM INT

if ! environment=$($here/engine.sh start "$state" 9>&-); then
    echo "test-containers: SKIPPED, no Docker engine can run here (for the reason above)"
    exit 0
fi
eval "$environment"
DOCKER_ANSWERED=1
# In the background, since a trap waits for a foreground command.
timeout --signal=TERM --kill-after=30 "$LIMIT" "$0" tests 9>&- &
tests_pid=$!
wait "$tests_pid" || {
    status=$?
    [ $status != 124 ] || echo "test-containers: stopped after $LIMIT s" >&2
    exit $status
}
