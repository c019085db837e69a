#!/usr/bin/env bash
# make test-containers: an engine if none runs, stand-ins for the registry's images, our own
# images, and the tests against the running stack; everything is removed again.
set -euo pipefail
cd "$(dirname "$0")/../.."

LIMIT=${SHORTLIST_CONTAINERS_LIMIT:-1200}  # seconds in all
state=$(mktemp -d "${TMPDIR:-/tmp}/shortlist-containers.XXXXXX")
cache=.cache/containers
here=tests/containers

if [ "${1:-}" != bounded ]; then
    rmdir "$state"
    # One at a time on a machine: engines share its firewall.
    exec 9>"${TMPDIR:-/tmp}/shortlist-containers.lock"
    flock --timeout "$LIMIT" 9 || { echo "test-containers: another run holds the machine" >&2; exit 1; }
    # SIGTERM at the limit, so that the trap below still cleans up.
    timeout --signal=TERM --kill-after=60 "$LIMIT" "$0" bounded || {
        status=$?
        [ $status != 124 ] || echo "test-containers: stopped after $LIMIT s" >&2
        exit $status
    }
    exit 0
fi

cleanup() {
    local status=$?
    trap - EXIT TERM INT
    $here/engine.sh stop "$state" || true
    rm -rf "$state"
    exit $status
}
trap cleanup EXIT
trap 'exit 143' TERM INT

if ! environment=$($here/engine.sh start "$state"); then
    echo "test-containers: SKIPPED, no Docker engine can run here (the reason stands above)"
    exit 0
fi
eval "$environment"
step() { printf 'test-containers: %s, %s s so far\n' "$1" "$SECONDS"; }
$here/images.sh base $cache
step "base image"
$here/images.sh ours
step "images built"
$here/images.sh standins
step "stand-ins built"
docker images --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep '^shortlist/'
SHORTLIST_CONTAINERS=1 .venv/bin/pytest -q -p no:xdist -x $here/live &
wait $! || exit $?
step "tests passed"
