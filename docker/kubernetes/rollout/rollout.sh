#!/bin/sh
# Run one verb of `shortlist` against every pod behind the headless service.
#   rollout.sh canary 7 --servable retrieval_ivf
set -eu
service=${SHORTLIST_SERVICE:?}
addresses=$(python3 -c '
import socket, sys
found = {entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 8500, socket.AF_INET, socket.SOCK_STREAM)}
print(*(f"--address={address}:8500" for address in sorted(found)))
' "$service")
verb=$1
shift
# shellcheck disable=SC2086 # one word for each address
exec shortlist "$verb" "$@" $addresses --polled --config /rollout/models.config --repository /models --timeout 600
