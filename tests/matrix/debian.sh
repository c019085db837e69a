#!/usr/bin/env bash
# debian.sh SUITE COMMAND: run a command on a copy of this tree in a bare Debian (bookworm, trixie),
# which has its own Python, make, and nothing else. As root, with debootstrap. Exit status 3: no such
# root can be made here; the reason is on stderr.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=$1 command=$2
cannot() { printf 'matrix: %s\n' "$*" >&2; exit 3; }

[ "$(id -u)" = 0 ] || cannot "only root can make a Debian root"
if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || cannot "there is no debootstrap"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap; } \
        >/dev/null 2>&1 || cannot "debootstrap cannot be installed"
fi
unshare --mount --pid --fork true 2>/dev/null || cannot "this kernel allows no mount namespaces"

folder=$(mktemp -d "${TMPDIR:-/tmp}/shortlist-matrix.XXXXXX")
trap 'rm -rf --one-file-system "$folder"' EXIT
root=$folder/root
debootstrap --variant=minbase --include=make,python3 "$suite" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} \
    >"$folder/log" 2>&1 || { tail -5 "$folder/log" >&2; cannot "no Debian $suite can be installed"; }
mkdir "$root/src"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c | tar -x -C "$root/src"
# The machine's way to its registries.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8)
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [ -f "$authorities" ]; then
    cp "$authorities" "$root/etc/authorities.crt"
    settings+=(SSL_CERT_FILE=/etc/authorities.crt PIP_CERT=/etc/authorities.crt)
fi
# Its mounts and processes end with it.
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --mount --pid --fork --kill-child sh -c '
    root=$1 command=$2; shift 2
    mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" || exit 3
    exec chroot "$root" env -i "$@" sh -c "cd /src && $command"
' sh "$root" "$command" "${settings[@]}"
