#!/usr/bin/env bash
# Write a self-signed certificate, its key and a random token into DIR, unless they exist.
# For trials and tests; in production, put your own files there.
set -euo pipefail
dir=${1:?usage: make_credentials.sh DIR [HOST...]}
shift
hosts=("localhost" "$@")
mkdir -p "$dir"
if [ ! -f "$dir/cert.pem" ]; then
    command -v openssl >/dev/null || { echo "make_credentials: needs openssl, or your own $dir/cert.pem and key.pem" >&2; exit 1; }
    names="IP:127.0.0.1"
    for host in "${hosts[@]}"; do names+=",DNS:$host"; done
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=${hosts[-1]}" -addext "subjectAltName=$names" \
        -addext keyUsage=critical,digitalSignature,keyCertSign \
        -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
    echo "made a self-signed certificate in $dir: replace it before anybody relies on it" >&2
fi
if [ ! -f "$dir/tokens.map" ]; then
    token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    printf '"Bearer %s" 1;\n' "$token" >"$dir/tokens.map"
    echo "wrote a random token to $dir/tokens.map" >&2
fi
# The proxy runs as another user; the folder itself keeps other users of the host out.
chmod 0711 "$dir"
chmod 0644 "$dir"/cert.pem "$dir"/key.pem "$dir"/tokens.map
