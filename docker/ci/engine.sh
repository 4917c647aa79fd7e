# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by check: starts and stops the docker engine that the check uses.
#
# A running engine is used if the base image is available there. Otherwise, as root, a
# daemon of our own is started on a temporary folder and bridge; it touches no firewall rule, no
# routing and no other daemon, and stop_engine removes all of it.

engine_dir=    # set while a daemon of our own runs
engine_pid=
engine_bridge=
engine_key=    # the file that dockerd writes outside its folders, if it was not there before

# Sets the array `docker` (the client's command line). Returns non-zero, with the reason in
# `engine_refusal`, if there is no engine.
start_engine() {
    local base=$1
    docker=(docker)
    if docker info >/dev/null 2>&1; then
        if docker image inspect "$base" >/dev/null 2>&1 \
            || timeout 120 docker pull --quiet "$base" >/dev/null 2>&1; then
            return 0
        fi
        # No stand-in here: it would take the official image's name in somebody's engine.
        engine_refusal="the running docker engine cannot pull $base, and a daemon of our own"
    else
        engine_refusal="no docker engine answers, and a daemon of our own"
    fi
    [ "$(uname -s)" = Linux ] || { engine_refusal+=" needs Linux"; return 1; }
    [ "$(id -u)" = 0 ] || { engine_refusal+=" needs root"; return 1; }
    need dockerd docker.io || { engine_refusal+=" needs dockerd (Debian's package docker.io)"; return 1; }
    need ip iproute2 || { engine_refusal+=" needs ip (Debian's package iproute2)"; return 1; }
    start_daemon || { engine_refusal+=" did not start"; return 1; }
}

# need COMMAND PACKAGE: the command, installed by apt-get (and said so) where it is missing.
need() {
    command -v "$1" >/dev/null && return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing Debian's package $2, for $1 is missing"
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e $policy ]; then    # else the package's own service would be started
        ours=yes
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2"; } \
        >"$work/apt.log" 2>&1 || tail -n 5 "$work/apt.log" >&2
    [ -z "$ours" ] || rm -f $policy
    command -v "$1" >/dev/null
}

start_daemon() {
    engine_dir=$work/engine
    engine_bridge=vipsrv$$
    mkdir "$engine_dir"
    if ! { ip link add "$engine_bridge" type bridge \
        && ip address add "198.18.$(($$ % 254 + 1)).1/24" dev "$engine_bridge" \
        && ip link set "$engine_bridge" up; }; then
        return 1
    fi
    # Debian's client belongs to Debian's daemon; another one may stand before it in PATH.
    local client=docker
    [ ! -x /usr/bin/docker ] || client=/usr/bin/docker
    docker=("$client" --host "unix://$engine_dir/socket")
    [ -e /etc/docker/key.json ] || engine_key=/etc/docker/key.json
    # Published ports need no firewall rule: docker-proxy forwards them.
    setsid dockerd --data-root "$engine_dir/data" --exec-root "$engine_dir/exec" \
        --pidfile "$engine_dir/pid" --host "unix://$engine_dir/socket" --bridge "$engine_bridge" \
        --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$engine_bridge" \
        >"$engine_dir/log" 2>&1 &
    engine_pid=$!
    within 30 "${docker[@]}" version && return 0
    tail -n 5 "$engine_dir/log" >&2
    return 1
}

stop_engine() {
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null || true
        wait "$engine_pid" || true
        engine_pid=
    fi
    if [ -n "$engine_dir" ]; then
        # Deepest first; normally only the network namespaces' mount is left.
        awk -v under="$engine_dir/" 'index($2, under) == 1 { print $2 }' /proc/self/mounts \
            | sort -r | xargs -r umount
    fi
    if [ -n "$engine_bridge" ]; then
        ip link delete "$engine_bridge" 2>/dev/null || true
        find /sys/fs/cgroup -depth -type d -path "*/$engine_bridge*" -exec rmdir {} + 2>/dev/null || true
    fi
    if [ -n "$engine_key" ]; then
        rm -f "$engine_key"
        rmdir "${engine_key%/*}" 2>/dev/null || true
    fi
}
