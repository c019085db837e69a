#!/usr/bin/env bash
# make matrix: other Pythons and another TensorFlow than those of `make test`. Cells:
#
#   clients      the clients alone, with each Python from 3.11 to 3.14 that is installed
#   tensorflow   train, publish, serve and query with tensorflow-cpu 2.21 and without ScaNN
#   beam         `shortlist recommend` as a pipeline of Apache Beam with several workers
#   languages    the programs of docs/languages.md, with the compilers that are installed
#   python       the fast tests on Python 3.13, in a bare Debian 13 if it is not installed
#   debian       `make demo` in a bare Debian 12 and 13; only if named
#   first_hour   the README's first steps with a wheel there, timed; only if named
set -euo pipefail
cd "$(dirname "$0")/../.."

SAMPLE=(--data sample --sample-users 200 --sample-candidates 500 --sample-interactions 10000)
uv=$PWD/.venv/bin/uv

say() { printf 'matrix: %s\n' "$*"; }

copy_tree() {  # copy_tree FOLDER: copy the files that git tracks or would add
    mkdir "$1"
    git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c | tar -x -C "$1"
}

find_python() {  # find_python VERSION: print the path of one that runs
    local candidate
    for candidate in "python$1" ~/.pyenv/versions/"$1".*/bin/python; do
        if "$candidate" -c '' 2>/dev/null; then command -v "$candidate"; return; fi
    done
    return 1
}

clients() {
    local found python version missing=()
    for version in 3.11 3.12 3.13 3.14; do
        if ! found=$(find_python "$version"); then missing+=("$version"); continue; fi
        python=$folder/clients-$version/bin/python
        "$uv" venv --quiet --python "$found" "$folder/clients-$version"
        "$uv" pip install --quiet --python "$python" .
        "$python" tests/matrix/ask_clients.py
    done
    [ ${#missing[@]} = 0 ] || say "clients: Python ${missing[*]} is not installed"
}

tensorflow() {
    local bin=$folder/tensorflow/bin
    "$uv" venv --quiet --python .venv/bin/python "$folder/tensorflow"
    "$uv" pip sync --quiet --python "$bin/python" --require-hashes tests/matrix/tensorflow-2.21.lock
    "$uv" pip install --quiet --python "$bin/python" --no-deps .
    cd "$folder"
    "$bin/shortlist" demo "${SAMPLE[@]}" --json >report.json 2>log || { cat log; exit 1; }
    grep "index scann is left out: scann is not installed" log
    "$bin/python" - report.json <<'PYTHON'
import json, sys
from importlib.metadata import version
report = json.load(open(sys.argv[1]))
servables = sorted(report["servables"])
assert servables == ["retrieval_brute_force", "retrieval_ivf"], servables
print(f"tensorflow-cpu {version('tensorflow-cpu')} published, served and queried", *servables)
PYTHON
    if "$bin/shortlist" export "${SAMPLE[@]}" --index scann 2>log; then exit 1; fi
    grep "pip install 'shortlist\[scann\]'" log
}

beam() {
    local bin=$folder/beam/bin
    "$uv" venv --quiet --python .venv/bin/python "$folder/beam"
    "$uv" pip sync --quiet --python "$bin/python" --require-hashes tests/matrix/beam.lock
    "$uv" pip install --quiet --python "$bin/python" --no-deps .
    cp tests/matrix/ask_beam.py examples/beam_pipeline.py "$folder"
    cd "$folder"
    "$bin/python" ask_beam.py
}

languages() {
    tests/matrix/languages.sh
}

python() {
    local found
    if ! found=$(find_python 3.13); then
        tests/matrix/debian.sh trixie "make check"
        return
    fi
    copy_tree "$folder/python"
    make --no-print-directory -C "$folder/python" PYTHON="$found" check
}

debian() {
    tests/matrix/debian.sh bookworm "make demo DATA=sample && tests/matrix/run.sh clients"
    tests/matrix/debian.sh trixie "make demo DATA=sample && tests/matrix/run.sh clients"
}

first_hour() {
    tests/matrix/debian.sh bookworm tests/matrix/first_hour.sh
    tests/matrix/debian.sh trixie tests/matrix/first_hour.sh
}

if [ "${1:-}" = cell ]; then  # a process of its own, which ends at the first error
    folder=$(mktemp -d "${TMPDIR:-/tmp}/shortlist-matrix.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    "$2"
    exit
fi
passed=0 failed=0 skipped=0
[ $# -gt 0 ] || set -- clients tensorflow beam languages python
for cell; do
    started=$SECONDS status=0
    "$0" cell "$cell" || status=$?
    case $status in
        0) passed=$((passed + 1)); say "$cell passed in $((SECONDS - started)) s" ;;
        3) skipped=$((skipped + 1)); say "$cell SKIPPED, for the reason above" ;;
        *) failed=$((failed + 1)); say "$cell FAILED" ;;
    esac
done
printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
