#!/usr/bin/env bash
# Write a self-signed certificate, its key and a random token into DIR, unless they exist, and keep
# other users of the machine away from them. For trials and tests; in production, put your own
# files there.
set -euo pipefail
dir=${1:?usage: make_credentials.sh DIR [HOST...]}
shift
hosts=("localhost" "$@")
say() { echo "make_credentials: $*" >&2; }

umask 077
mkdir -p "$dir"
if [ ! -e "$dir/cert.pem" ]; then
    command -v openssl >/dev/null || { say "needs openssl, or your own $dir/cert.pem and key.pem"; exit 1; }
    names="IP:127.0.0.1"
    for host in "${hosts[@]}"; do names+=",DNS:$host"; done
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=${hosts[-1]}" -addext "subjectAltName=$names" \
        -addext keyUsage=critical,digitalSignature,keyCertSign \
        -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
    say "made a self-signed certificate in $dir: replace it before anybody relies on it"
fi
if [ ! -e "$dir/tokens.map" ]; then
    token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    printf '"~^Bearer \\Q%s\\E$" 1;\n' "$token" >"$dir/tokens.map"
    say "wrote a random token to $dir/tokens.map"
fi
# Without "~^...$", nginx compares without case.
if grep -qE '^ *"?Bearer ' "$dir/tokens.map"; then
    say "a token in $dir/tokens.map compares without case; write its line as \"~^Bearer \\QSECRET\\E\$\" 1;"
fi

# The proxy's container runs as the user who called this, or as a user of its own if that is root.
# Files that are links, such as certbot's, keep their modes: let that user read them.
for file in "$dir" "$dir"/cert.pem "$dir"/key.pem "$dir"/tokens.map; do
    [ ! -L "$file" ] || continue
    [ "$(id -u)" != 0 ] || chown "${SHORTLIST_PROXY_USER:-65532:65532}" "$file"
    chmod go= "$file" || say "cannot keep other users from $file; do it by hand"
done
