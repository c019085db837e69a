#!/usr/bin/env bash
# Write the lock files of the images: the part of requirements.lock that each image needs.
# `make lock` calls it after renewing requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.venv/bin/uv}
out=docker/requirements

# TensorFlow declares these, but the embedded server uses TensorFlow's runtime below its API and
# does not load them. The export image, which trains, has them.
NOT_SERVED=(h5py keras libclang markdown markdown-it-py markupsafe mdurl namex optree pillow
    pygments rich setuptools tensorboard tensorboard-data-server werkzeug wheel)
# No image needs these: parser of headers for TensorFlow Lite's converter, TensorBoard's server.
NOT_SHIPPED=(libclang tensorboard-data-server)

compile() {  # compile OUTPUT [uv's options]
    local output=$1
    shift
    "$uv" pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-header --no-annotate -c requirements.lock --override "$out/overrides.txt" "$@" -o "$output"
}
without() { printf -- '--no-emit-package %s ' "$@"; }
names() { sed -nE 's/^([a-z0-9-]+)==.*/\1/p' "$1"; }

# shellcheck disable=SC2046 # lists of options
{
    compile "$out/server.lock" --extra embedded --extra scann --extra tensorflow-cpu $(without "${NOT_SERVED[@]}") pyproject.toml
    compile "$out/export.lock" --extra all --extra scann --extra tensorflow-cpu \
        $(without "${NOT_SHIPPED[@]}" $(names "$out/server.lock")) pyproject.toml
    printf 'hatchling\nuv\n' | compile "$out/build.lock" -
}
