# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# Which cloud this is, by the variables that it sets. There root stays root (its volumes belong to root), and data,
# caches and results lie on the cloud's volume.

# Sets $cloud (runpod, vast or empty), $cloud_id (the pod or instance) and $volume.
recognise_cloud() {
    cloud='' cloud_id=''
    volume=${LTX_WORKSPACE:-/workspace}
    if [ -n "${RUNPOD_POD_ID:-}" ]; then
        cloud=runpod cloud_id=$RUNPOD_POD_ID
    elif [ -n "${VAST_CONTAINERLABEL:-}" ]; then
        cloud=vast cloud_id=${CONTAINER_ID:-${VAST_CONTAINERLABEL#C.}} # the label is C. and the number
    elif [ -n "${CONTAINER_ID:-}" ] && [ -n "${CONTAINER_API_KEY:-}" ]; then
        cloud=vast cloud_id=$CONTAINER_ID
    fi
}

# Vast calls its on-start whenever the instance starts, and people call it again: only one training goes on.
# The lock is the process's own: it is gone when the process is gone, however that ended.
take_turn() {
    if [ -z "$cloud" ]; then return; fi
    turn=${TMPDIR:-/tmp}/ltxtrain.lock
    # Tried in a subshell: a redirection that fails would end this shell.
    if ! (: >>"$turn") 2>/dev/null; then return; fi
    exec 9>>"$turn"
    if ! flock --nonblock 9; then
        note "a training is going on in this container already: nothing is started"
        exit 0
    fi
}

# Ask the cloud to stop this machine. runpodctl comes with RunPod's machines and knows its own key.
stop_machine() {
    if [ "$cloud" = runpod ] && command -v runpodctl >/dev/null 2>&1; then
        timeout 60 runpodctl stop pod "$cloud_id" >/dev/null 2>&1 && return 0
    fi
    timeout 120 python3 -I "$here/stop_pod.py" "$cloud" "$cloud_id"
}

# Said before hours of training, not after them.
warn_of_no_stop() {
    case $cloud in
    runpod)
        command -v runpodctl >/dev/null 2>&1 || given RUNPOD_API_KEY ||
            warn "LTX_ON_EXIT=stop-pod needs runpodctl or RUNPOD_API_KEY, and neither is there: the pod will not be stopped"
        ;;
    vast)
        given CONTAINER_API_KEY ||
            warn "LTX_ON_EXIT=stop-pod needs CONTAINER_API_KEY, which is not set: the instance will not be stopped"
        ;;
    esac
}
