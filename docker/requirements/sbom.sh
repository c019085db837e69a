#!/usr/bin/env bash
# Write a CycloneDX file for each image into DIR, from its lock file: name, version, hashes and
# package URL of every Python package. The base image's own packages are its publisher's to list.
set -euo pipefail
out=$(mkdir -p "${1:?usage: sbom.sh DIR}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."

sbom() {  # sbom IMAGE LOCK...; the tool checks its output against CycloneDX's schema
    local image=$1
    shift
    cat "${@/#/docker/requirements/}" | PYTHONWARNINGS=ignore .venv/bin/cyclonedx-py requirements --pyproject pyproject.toml \
        --output-reproducible --spec-version 1.6 --validate -o "$out/$image.cdx.json" -
}
sbom server server.lock
sbom export server.lock export.lock
