#!/usr/bin/env bash
# Stand-ins for the images of a registry, made on the spot, under the tags that docker/ names.
#
#   images.sh base CACHE_DIR    Debian with Python, in place of python:3.11-slim-bookworm
#   images.sh ours              the project's own: shortlist/server and shortlist/export
#   images.sh standins          in place of TensorFlow Serving's, nginx's and Prometheus's
set -euo pipefail
cd "$(dirname "$0")/../.."

MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

say() { printf 'images: %s\n' "$*" >&2; }

base() {
    local archive="$1/base.tar" scratch
    mkdir -p "$1"
    if [ ! -f "$archive" ]; then
        say "making a Debian with Python (about a minute)"
        # In memory or beside the engine's data, never in the worktree: device files, own modes.
        scratch=$(mktemp -d)
        if ! debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
            bookworm "$scratch/root" "$MIRROR" >"$scratch/log" 2>&1; then
            tail -20 "$scratch/log" >&2
            rm -rf "$scratch"
            exit 1
        fi
        rm -rf "$scratch"/root/var/cache/apt/archives/*.deb "$scratch"/root/var/lib/apt/lists/* \
            "$scratch"/root/usr/share/{doc,man,locale}/*
        # The machine's certificates and package sources: builds reach what the machine reaches.
        cp "$CA_BUNDLE" "$scratch/root$CA_BUNDLE"
        printf 'deb %s bookworm main\n' "$MIRROR" >"$scratch/root/etc/apt/sources.list"
        tar -C "$scratch/root" -c . >"$archive.part" && mv "$archive.part" "$archive"
        rm -rf "$scratch"
    fi
    docker import --change 'CMD ["python3"]' \
        --change "ENV SSL_CERT_FILE=$CA_BUNDLE PIP_CERT=$CA_BUNDLE" \
        "$archive" python:3.11-slim-bookworm >/dev/null
    say "python:3.11-slim-bookworm is a stand-in now"
}

build() {  # build TAG [docker's options]
    local tag=$1 log
    shift
    log=$(mktemp)
    say "building $tag"
    # The machine's network: builds reach the package registries as the machine does.
    if ! docker build --network host -t "$tag" "$@" >"$log" 2>&1; then
        tail -40 "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}

ours() {
    build shortlist/server:latest -f docker/Dockerfile --target server .
    build shortlist/export:latest -f docker/Dockerfile --target export .
}

standins() {
    local context=tests/containers/standins scratch
    build tensorflow/serving:2.20.0 -f $context/stock.Dockerfile \
        --build-arg SERVER_IMAGE=shortlist/server:latest $context
    build nginxinc/nginx-unprivileged:1.27-alpine -f $context/proxy.Dockerfile \
        --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm $context
    scratch=$(mktemp -d)
    cp "$(command -v prometheus)" "$scratch/prometheus"
    cp $context/prometheus.Dockerfile "$scratch/Dockerfile"
    build prom/prometheus:v2.53.4 --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm "$scratch"
    rm -rf "$scratch"
}

case ${1:-} in
    base) base "${2:?images.sh base CACHE_DIR}" ;;
    ours) ours ;;
    standins) standins ;;
    *) say "usage: images.sh base CACHE_DIR | ours | standins"; exit 2 ;;
esac
