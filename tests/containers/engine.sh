#!/usr/bin/env bash
# A Docker engine for the container tests.
#
#   engine.sh start DIR   use a running engine, or start one with all its data under DIR; as root on
#                         Debian, install it if it is missing. Prints `export DOCKER_HOST=...`.
#   engine.sh stop DIR    stop an engine that `start` started, and remove its traces.
#
# Exit status 3: no engine can run here; the reason is on stderr.
set -euo pipefail

START_SECONDS=60

say() { printf 'engine: %s\n' "$*" >&2; }
cannot() { say "$*"; exit 3; }

install_missing() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v iptables >/dev/null || missing+=(iptables)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v prometheus >/dev/null || missing+=(prometheus)  # for its stand-in
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null \
        || missing+=(docker-compose)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || cannot "missing ${missing[*]}, and without apt-get they cannot be installed"
    say "installing ${missing[*]}"
    local log="$dir/apt.log"
    # Packages start services by default; our engine is started below, with its own folders.
    if ! (export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
          apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}") \
          >"$log" 2>&1; then
        tail -20 "$log" >&2
        cannot "could not install ${missing[*]}"
    fi
}

remember_network() {
    iptables-save >"$dir/iptables.before" 2>/dev/null || cannot "iptables does not work in this kernel"
    local table
    for table in filter nat; do  # an unused table is not listed: empty it at the end
        grep -qx "\*$table" "$dir/iptables.before" || printf '*%s\nCOMMIT\n' "$table" >>"$dir/iptables.before"
    done
    cat /proc/sys/net/ipv4/ip_forward >"$dir/ip_forward.before"
    ls /sys/class/net >"$dir/interfaces.before"
}

restore_network() {
    iptables-restore <"$dir/iptables.before" || say "could not restore the firewall's rules"
    if ! grep -q '^:FORWARD DROP' "$dir/iptables.before"; then iptables -P FORWARD ACCEPT; fi
    cat "$dir/ip_forward.before" >/proc/sys/net/ipv4/ip_forward
    # Bridges of networks that were not removed outlive their engine.
    local interface
    for interface in /sys/class/net/br-*; do
        interface=${interface##*/}
        if [ -d "/sys/class/net/$interface" ] && ! grep -qx "$interface" "$dir/interfaces.before"; then
            ip link delete "$interface" || say "could not delete the bridge $interface"
        fi
    done
}

start() {
    mkdir -p "$dir"
    if docker info >/dev/null 2>&1 && { docker compose version || docker-compose version; } >/dev/null 2>&1; then
        say "using the running engine: $(docker info --format '{{.ServerVersion}}' 2>/dev/null)"
        if [ "${SHORTLIST_CONTAINERS_IMAGES:-}" != registry ]; then
            [ "$(id -u)" = 0 ] || cannot "only root can build stand-ins for a registry's images; with a registry: SHORTLIST_CONTAINERS_IMAGES=registry make test-containers"
            install_missing
        fi
        [ -z "${DOCKER_HOST:-}" ] || echo "export DOCKER_HOST=$DOCKER_HOST"
        return 0
    fi
    [ "$(id -u)" = 0 ] || cannot "no Docker engine answers, and only root can start one"
    grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null \
        || cannot "no Docker engine answers, and this kernel has no overlay file system to start one on"
    install_missing
    remember_network
    # A short path: that of a Unix socket has at most 107 characters.
    local run
    run=$(mktemp -d "${TMPDIR:-/tmp}/engine.XXXXXX")
    echo "$run" >"$dir/run"
    # No default bridge: compose creates its own networks, so engines do not clash.
    setsid dockerd --data-root "$dir/data" --exec-root "$run/exec" -H "unix://$run/d.sock" \
        -p "$run/d.pid" --bridge none >"$dir/dockerd.log" 2>&1 </dev/null &
    echo $! >"$dir/dockerd.pid"
    local deadline=$((SECONDS + START_SECONDS))
    until docker -H "unix://$run/d.sock" info >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 "$(cat "$dir/dockerd.pid")" 2>/dev/null; then
            tail -5 "$dir/dockerd.log" >&2
            stop
            cannot "the engine did not start"
        fi
        sleep 0.2
    done
    say "started $(docker -H "unix://$run/d.sock" info --format '{{.ServerVersion}} on {{.Driver}}' 2>/dev/null)"
    echo "export DOCKER_HOST=unix://$run/d.sock"
}

stop() {
    [ -f "$dir/dockerd.pid" ] || return 0
    local pid run deadline
    pid=$(cat "$dir/dockerd.pid")
    run=$(cat "$dir/run")
    deadline=$((SECONDS + 30))
    if kill -0 "$pid" 2>/dev/null; then kill "$pid"; fi
    while kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $deadline ]; then kill -9 "$pid"; break; fi
        sleep 0.2
    done
    restore_network
    # Mounts of containers that died with the engine.
    awk -v root="$dir/" -v run="$run/" 'index($2, root) == 1 || index($2, run) == 1 {print $2}' /proc/mounts \
        | sort -r | while read -r mount; do umount -l "$mount"; done
    rm -rf "$run" "$dir/data" "$dir"/*.before "$dir/dockerd.pid" "$dir/run"
    say "stopped"
}

[ $# = 2 ] || { say "usage: engine.sh start|stop DIR"; exit 2; }
dir=$(mkdir -p "$2" && cd "$2" && pwd)
case $1 in
    start) start ;;
    stop) stop ;;
    *) say "usage: engine.sh start|stop DIR"; exit 2 ;;
esac
