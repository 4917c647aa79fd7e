# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by check: the Dockerfile's base image in the engine.

# base_image NAME (python:X.Y-slim-SUITE): pulls it or, if no registry can be reached, replaces it by
# a stand-in of the same name. Only for a daemon of our own. Returns non-zero, with the reason in
# `engine_refusal`, if neither works.
base_image() {
    local name=$1
    timeout 120 "${docker[@]}" pull --quiet "$name" >/dev/null 2>&1 && return 0
    say "no registry has $name for us: a stand-in made of Debian's packages takes its place"
    need debootstrap debootstrap || { engine_refusal="no registry, and no debootstrap"; return 1; }

    local suite=${name##*-} cache=${XDG_CACHE_HOME:-$HOME/.cache}/vipsrv recipe rootfs
    recipe=$(sha256sum <"$here/base_image.sh" | cut -c1-12)
    rootfs=$cache/base-$suite-$(dpkg --print-architecture)-$recipe.tar
    if [ ! -e "$rootfs" ]; then
        mkdir -p "$cache"
        make_rootfs "$suite" "$rootfs.$$" || {
            tail -n 5 "$work/debootstrap.log" >&2
            rm -f "$rootfs.$$"
            engine_refusal="no registry, and debootstrap failed"
            return 1
        }
        rm -f "$cache/base-$suite-"*.tar    # of earlier recipes
        mv "$rootfs.$$" "$rootfs"
    fi

    # The base image gets this machine's access to the package index: its certificate authorities and its
    # pip settings. They stay out of the cache and end with the daemon.
    local context=$work/base
    mkdir "$context"
    cp "${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}" "$context/ca-certificates.crt"
    { echo '[global]'; pip_settings; } >"$context/pip.conf"
    "${docker[@]}" import "$rootfs" stand-in >/dev/null
    "${docker[@]}" build --quiet --tag "$name" --file - "$context" >/dev/null <<'DOCKERFILE'
FROM stand-in
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
CMD ["python3"]
DOCKERFILE
}

# Debian's Python with a virtual environment at /usr/local, so that `python` and `pip` are where
# the official image has them.
make_rootfs() {
    local suite=$1 tar=$2 root=$work/rootfs
    {
        debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" \
            && chroot "$root" python3 -m venv /usr/local \
            && rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
            && tar --create --directory "$root" --file "$tar" .
    } >"$work/debootstrap.log" 2>&1
}

# This machine's pip settings that concern the way to an index, as lines of a pip.conf.
pip_settings() {
    local keys='index-url|extra-index-url|trusted-host|proxy|retries|timeout|default-timeout'
    python3 -m pip config list 2>/dev/null \
        | sed -nE "s/^(:env:|global)\.($keys)='(.*)'\$/\2 = \3/p" \
        | sed 's/\\n/ /g' | awk '!seen[$1]++' || true
}
