#!/usr/bin/env bash
# Install Debian's Chromium for the tests that look at pages, if it is missing and we are root.
# Never fails: without it, those tests are skipped.
set -uo pipefail

say() { printf 'browser: %s\n' "$*" >&2; }

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if ! command -v apt-get >/dev/null 2>&1; then
    say "no Chromium and no apt-get; tests that look at pages will be skipped"
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    say "no Chromium; run as root: apt-get install chromium. Tests that look at pages will be skipped"
    exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    DEBIAN_FRONTEND=noninteractive timeout 300 \
        apt-get -o DPkg::Lock::Timeout=60 install -y -qq --no-install-recommends chromium >>"$log" 2>&1 </dev/null
}
# The package lists may be fresh, stale or missing.
if install || { timeout 120 apt-get update -qq >>"$log" 2>&1 </dev/null && install; }; then
    say "installed $(chromium --version 2>/dev/null || echo Chromium)"
else
    say "Chromium cannot be installed; tests that look at pages will be skipped:"
    tail -n 3 "$log" >&2
fi
exit 0
