# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by check: a load on the container, which has 512 MiB of memory and its spool in a tmpfs, and its end by SIGTERM
# under load.

load() { timeout 200 python3 "$here/load.py" "$1" "${address%:*}" "${address##*:}" "${@:2}"; }
# killed: whether the kernel has killed a process because memory ran out.
killed() {
    "${docker[@]}" exec "$container" sh -c 'cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control' \
        2>/dev/null | grep -q '^oom_kill [1-9]'
}
highest() {
    local bytes
    bytes=$("${docker[@]}" exec "$container" \
        sh -c 'cat /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes' 2>/dev/null) || true
    echo "${bytes:+, $((bytes / 1048576)) MiB at most}"
}

[ -n "$(logged "the memory limit of 512 MiB sets")" ] || fail "the server does not say what the memory limit sets"
corpus=$root/../shared/corpus    # optional: files of other projects, which are not in the repository
if [ -d "$corpus" ]; then load corpus "$corpus" || fail "the corpus in 512 MiB"; fi
load giant || fail "a TIFF of 324 MB in 512 MiB"
load clients || fail "32 clients in 512 MiB"
load clients &
other=$!
load giant || fail "a TIFF of 324 MB beside 32 clients in 512 MiB"
wait $other || fail "32 clients beside a TIFF of 324 MB in 512 MiB"
killed && fail "the kernel has killed a process because memory ran out"
within 5 healthy || fail "not healthy after the load: $(inspect '{{json .State.Health}}')"
[ "$(inspect '{{.RestartCount}} {{.State.OOMKilled}}')" = "0 false" ] || fail "the container has died under load"
ok "a load in 512 MiB of memory$(highest)"

load until-drained >"$work/load" 2>&1 &
other=$!
within 60 grep -q "under load" "$work/load" || fail "a load to stop the server under: $(cat "$work/load")"
"${docker[@]}" stop --time 40 "$container" >/dev/null
wait $other || fail "docker stop under load has lost requests: $(cat "$work/load")"
status=$(inspect '{{.State.ExitCode}}')
[ "$status" = 0 ] || fail "exit status $status after SIGTERM"
ok "ended by SIGTERM under load with exit status 0, and every request answered:$(tail -n 1 "$work/load")"
