#!/usr/bin/env bash
# first_hour.sh: play the README's first steps with a wheel of this tree, in a folder of its own, and
# time each. Meant for a bare Debian: tests/matrix/debian.sh bookworm tests/matrix/first_hour.sh
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/shortlist-first-hour.XXXXXX")
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"

total=0
step() {  # step COMMAND: show, run and time a command of the shell
    local started=$SECONDS
    printf '\n$ %s\n' "$1"
    eval "$1"
    total=$((total + SECONDS - started))
    printf '[%s s]\n' $((SECONDS - started))
}

python3 -c 'import ensurepip' 2>/dev/null || {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
}
python3 -m venv build
build/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir . "$source"
wheel=$(echo "$PWD"/shortlist-*.whl)
# From the registry, it would be the name alone.
# shellcheck disable=SC2034  # `step` evaluates it
name="shortlist[all] @ file://$wheel"

python3 --version
step 'python3 -m venv venv && . venv/bin/activate'
step 'pip install --quiet --disable-pip-version-check "$name"'
step 'shortlist --version'
step 'shortlist demo --data sample'
step 'shortlist docker init docker'
printf '\n$ shortlist serve --repository demo-output/sample/models\n'
shortlist serve --repository demo-output/sample/models --log-file server.log &
server=$!
step 'shortlist status --index ivf --wait 120'
step 'shortlist query 2 -k 3 --exclude-seen --transport grpc --index ivf'
printf '\nfirst hour: %s s, %s in the environment\n' "$total" "$(du -sh venv | cut -f1)"
