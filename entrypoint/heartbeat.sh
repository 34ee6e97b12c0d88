# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# Where the sign of life lies: ltxtrain writes the file that LTX_HEARTBEAT names, healthcheck.sh looks how old it is.

# heartbeat_places: where it may lie, the best place first, a line each.
heartbeat_places() {
    if [ -n "${LTX_HEARTBEAT:-}" ]; then
        printf '%s\n' "$LTX_HEARTBEAT"
        return
    fi
    # With a read-only root and no tmpfs at /tmp, /dev/shm is still there. Containers may share it (--ipc=host), but
    # not their names.
    printf '%s\n' /tmp/ltxtrain.heartbeat "/dev/shm/ltxtrain-$(uname -n).heartbeat"
}

heartbeat_path() {
    heartbeat_places | while IFS= read -r heartbeat_place; do
        if [ -n "${LTX_HEARTBEAT:-}" ] || writable "$(dirname -- "$heartbeat_place")"; then
            printf '%s\n' "$heartbeat_place"
            break
        fi
    done
}

heartbeat_here() {
    LTX_HEARTBEAT=$(heartbeat_path)
    if [ -n "$LTX_HEARTBEAT" ]; then export LTX_HEARTBEAT; else unset LTX_HEARTBEAT; fi
}

# What a run that was killed has left would be told as a run that hangs.
forget_heartbeat() {
    if [ -n "${LTX_HEARTBEAT:-}" ]; then rm -f -- "$LTX_HEARTBEAT" 2>/dev/null; fi
    return 0
}
