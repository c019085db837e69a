#!/usr/bin/env bash
# Writes the locks of the images beside this script: what requirements.lock holds, cut to what
# each image needs. `make lock` calls it after renewing requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.venv/bin/uv}
out=docker/requirements

# TensorFlow declares these; the embedded server enters TensorFlow's runtime below its API and
# loads none of them. They stay in the export image, which trains.
NOT_SERVED=(h5py keras libclang markdown markdown-it-py markupsafe mdurl namex optree pillow
    pygments rich setuptools tensorboard tensorboard-data-server werkzeug wheel)
# No image needs them: headers' parser of TensorFlow Lite's converter, TensorBoard's own server.
NOT_SHIPPED=(libclang tensorboard-data-server)

compile() {  # compile OUTPUT [uv's options]
    local output=$1
    shift
    "$uv" pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-header --no-annotate -c requirements.lock "$@" -o "$output"
}
without() { printf -- '--no-emit-package %s ' "$@"; }
names() { sed -nE 's/^([a-z0-9-]+)==.*/\1/p' "$1"; }

# shellcheck disable=SC2046 # lists of options
{
    compile "$out/server.lock" --extra embedded $(without "${NOT_SERVED[@]}") pyproject.toml
    compile "$out/export.lock" --extra embedded --extra export \
        $(without "${NOT_SHIPPED[@]}" $(names "$out/server.lock")) pyproject.toml
    printf 'hatchling\nuv\n' | compile "$out/build.lock" -
}
