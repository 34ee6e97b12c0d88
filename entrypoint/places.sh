# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# Where clips, caches and results lie. ltxtrain reads LTX_DATA_DIR, LTX_CACHE_DIR and LTX_OUTPUT_DIR as the weakest layer
# of its configuration: whatever the user says there, in any way, is stronger, so nothing of it need be read here.

# Sets $data, $cache and $output.
find_places() {
    data=/data cache=/cache output=/output
    if [ -n "$cloud" ]; then
        # A cloud has one volume. A folder that was mounted on purpose is still the better place.
        mountpoint -q /data || data=$volume/data
        mountpoint -q /cache || cache=$volume/cache
        mountpoint -q /output || output=$volume/output
        mkdir -p -- "$data" "$cache" "$output" 2>/dev/null
    fi
    # ltxtrain's own variables count before these: libraries are to use the same cache, and the owner of these folders
    # is who training runs as.
    data=${LTXTRAIN_INSTANCE_DATA_DIR:-${LTXTRAIN_DATA:-${LTX_DATA_DIR:-$data}}}
    cache=${LTXTRAIN_CACHE_DIR:-${LTXTRAIN_CACHE:-${LTX_CACHE_DIR:-$cache}}}
    output=${LTXTRAIN_OUTPUT_DIR:-${LTXTRAIN_OUTPUT:-${LTX_OUTPUT_DIR:-$output}}}
}

# Tell ltxtrain and the libraries. Called as the user that training runs as.
name_places() {
    if holds_something "$data"; then keep LTX_DATA_DIR "$data"; fi
    keep LTX_CACHE_DIR "$cache"
    keep LTX_OUTPUT_DIR "$output"
    keep LTX_PREPARED 1 # launch.sh looks for it
    # Downloads and compiled kernels are worth keeping, and a read-only root has no other place for them.
    keep HF_HOME "$cache/huggingface"
    keep TORCH_HOME "$cache/torch"
    keep TRITON_CACHE_DIR "$cache/triton"
    keep TORCHINDUCTOR_CACHE_DIR "$cache/inductor"
    keep XDG_CACHE_HOME "$cache/xdg"
    keep MIOPEN_USER_DB_PATH "$cache/miopen"
    keep MIOPEN_CUSTOM_CACHE_DIR "$cache/miopen"
    keep PYTORCH_TUNABLEOP_FILENAME "$cache/tunableop/results%d.csv"
    # On AMD alone is that file written, and its folder must be there.
    if [ -e /dev/kfd ]; then mkdir -p -- "$(dirname -- "$PYTORCH_TUNABLEOP_FILENAME")" 2>/dev/null; fi
    # Relative paths lead to the volume as well, unless somebody chose a folder (docker run -w, a shell on Vast).
    if [ -n "$cloud" ] && [ -d "$output" ]; then
        case $PWD in / | /root | /output) cd -- "$output" || : ;; esac
    fi
}

# Also true where the folder cannot be looked into: ltxtrain then says who may not read it.
holds_something() {
    if [ ! -d "$1" ]; then return 1; fi
    if [ ! -r "$1" ]; then return 0; fi
    for entry in "$1"/*; do [ -e "$entry" ] && return 0; done
    return 1
}

# Without clips ltxtrain says that none are named; it cannot know that a folder for them is mounted.
note_empty_data() {
    if [ -z "${LTX_DATA_DIR:-}" ] && mountpoint -q "$data"; then note "$data is mounted, but holds nothing"; fi
}
