#!/usr/bin/env bash
# Check docker/ without running it. A missing tool skips its check and prints one line; as root on
# Debian with CI=1, missing tools are installed first.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=0
say() { printf 'docker/lint: %s\n' "$*"; }
run() {  # run NAME COMMAND...: quiet if it passes
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then say "$name: ok"; else failed=1; printf '%s\n' "$output"; say "$name: FAILED"; fi
}
have() { command -v "$1" >/dev/null 2>&1; }

if [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && have apt-get; then
    missing=()
    have promtool || missing+=(prometheus)
    have shellcheck || missing+=(shellcheck)
    have docker-compose || docker compose version >/dev/null 2>&1 || missing+=(docker-compose)
    if [ ${#missing[@]} -gt 0 ]; then
        # RUNLEVEL=1: Debian starts no service in single-user mode.
        (export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
         apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}") \
            >/dev/null 2>&1 || say "could not install ${missing[*]}"
    fi
fi

run "image versions" .venv/bin/python docker/images.py

mapfile -t dockerfiles < <(git ls-files '*Dockerfile')
run "hadolint" .venv/bin/hadolint --failure-threshold warning "${dockerfiles[@]}"

if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif have docker-compose; then compose=(docker-compose)
else compose=(); fi
profiles=(--profile scann --profile sharded --profile monitoring --profile tls --profile export --profile update)
if [ ${#compose[@]} -gt 0 ]; then
    run "compose config" env SHORTLIST_REPOSITORY=/models "${compose[@]}" -f docker/compose.yaml "${profiles[@]}" config --quiet
else say "compose config: skipped, neither docker compose nor docker-compose is installed"; fi

if have promtool; then
    run "promtool config" promtool check config --syntax-only docker/monitoring/prometheus.yaml
    run "promtool rules" promtool check rules docker/monitoring/rules.yaml
    run "promtool tests" promtool test rules docker/monitoring/rules_test.yaml
else say "promtool: skipped, it is not installed (Debian: prometheus)"; fi

mapfile -t scripts < <(git ls-files '*.sh' '.ci/*' docker/server/ready docker/server/tensorflow_model_server)
for script in "${scripts[@]}"; do bash -n "$script" || failed=1; done
if have shellcheck; then run "shellcheck" shellcheck --severity=warning "${scripts[@]}"
else say "shellcheck: skipped, it is not installed"; fi

# Rendering, API schemas and security settings of docker/kubernetes.
run "kubernetes" .venv/bin/pytest -q -p no:cacheprovider tests/containers/test_kubernetes.py
exit $failed
