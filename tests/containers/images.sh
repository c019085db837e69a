#!/usr/bin/env bash
# Build the images of the container tests: our own, and stand-ins for a registry's. All have names
# of their own, so that no other image of a running engine is replaced.
#
#   images.sh base CACHE_DIR    Debian with Python, in place of python:3.11-slim-bookworm
#   images.sh ours              our own: server and export
#   images.sh standins          in place of TensorFlow Serving's, nginx's and Prometheus's
#   images.sh remove            remove all of them
#
# With SHORTLIST_CONTAINERS_IMAGES=registry only `ours` are built; the others are pulled.
set -euo pipefail
cd "$(dirname "$0")/../.."

MIRROR=${DEBIAN_MIRROR:-}  # default: debootstrap's own
CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

BASE=shortlist-standin/python:latest
[ "${SHORTLIST_CONTAINERS_IMAGES:-}" != registry ] || BASE=python:3.11-slim-bookworm
OURS=(shortlist-test/server:latest shortlist-test/export:latest)
STANDINS=(shortlist-standin/python:latest shortlist-standin/serving:latest
    shortlist-standin/proxy:latest shortlist-standin/prometheus:latest)

say() { printf 'images: %s\n' "$*" >&2; }

base() {
    local archive="$1/base.tar" scratch
    mkdir -p "$1"
    if [ ! -f "$archive" ]; then
        say "building a Debian with Python (about a minute)"
        # In a temporary folder, never in the worktree, because of device files and file modes.
        scratch=$(mktemp -d)
        if ! debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
            bookworm "$scratch/root" ${MIRROR:+"$MIRROR"} >"$scratch/log" 2>&1; then
            tail -20 "$scratch/log" >&2
            rm -rf "$scratch"
            exit 1
        fi
        rm -rf "$scratch"/root/var/cache/apt/archives/*.deb "$scratch"/root/var/lib/apt/lists/* \
            "$scratch"/root/usr/share/{doc,man,locale}/*
        # The machine's certificates, so that builds can reach its registries.
        cp "$CA_BUNDLE" "$scratch/root$CA_BUNDLE"
        tar -C "$scratch/root" -c . >"$archive.part" && mv "$archive.part" "$archive"
        rm -rf "$scratch"
    fi
    docker import --change 'CMD ["python3"]' \
        --change "ENV SSL_CERT_FILE=$CA_BUNDLE PIP_CERT=$CA_BUNDLE" \
        "$archive" "$BASE" >/dev/null
}

build() {  # build TAG [docker's options]
    local tag=$1 log
    shift
    log=$(mktemp)
    say "building $tag"
    # The machine's network, so that builds can reach its registries.
    if ! docker build --network host -t "$tag" "$@" >"$log" 2>&1; then
        tail -40 "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}

ours() {
    local target
    for target in server export; do
        build shortlist-test/$target:latest -f docker/Dockerfile --target $target \
            --build-arg PYTHON_IMAGE="$BASE" .
    done
}

standins() {
    local context=tests/containers/standins scratch
    build shortlist-standin/serving:latest -f $context/stock.Dockerfile \
        --build-arg SERVER_IMAGE=shortlist-test/server:latest $context
    build shortlist-standin/proxy:latest -f $context/proxy.Dockerfile \
        --build-arg PYTHON_IMAGE="$BASE" $context
    scratch=$(mktemp -d)
    cp "$(command -v prometheus)" "$scratch/prometheus"
    cp $context/prometheus.Dockerfile "$scratch/Dockerfile"
    build shortlist-standin/prometheus:latest --build-arg PYTHON_IMAGE="$BASE" "$scratch"
    rm -rf "$scratch"
}

case ${1:-} in
    base) base "${2:?images.sh base CACHE_DIR}" ;;
    ours) ours ;;
    standins) standins ;;
    remove) docker image rm --force "${OURS[@]}" "${STANDINS[@]}" >/dev/null 2>&1 || true ;;
    *) say "usage: images.sh base CACHE_DIR | ours | standins | remove"; exit 2 ;;
esac
