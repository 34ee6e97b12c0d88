# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# Where clips, caches and results lie, told to ltxtrain by its own variables. What the user says in any way (a flag, a
# variable, a configuration) is left alone: a variable is stronger than a file, so it must not be set over one.

# find_places ARGUMENT...: sets $data, $cache and $output, and what the arguments name themselves.
find_places() {
    data=/data cache=/cache output=/output
    if [ -n "$cloud" ]; then
        # A cloud has one volume. A folder that was mounted on purpose is still the better place.
        mountpoint -q /data || data=$volume/data
        mountpoint -q /cache || cache=$volume/cache
        mountpoint -q /output || output=$volume/output
        mkdir -p -- "$data" "$cache" "$output" 2>/dev/null
    fi
    names_data='' names_cache='' names_output='' only_looks='' flag=''
    for argument in "$@"; do
        if [ -n "$flag" ]; then
            take_value "$flag" "$argument"
            flag=''
            continue
        fi
        case $argument in
        --config=* | --output=* | --output[-_]dir=* | --cache=* | --cache[-_]dir=*)
            take_value "${argument%%=*}" "${argument#*=}"
            ;;
        --config | --output | --output[-_]dir | --cache | --cache[-_]dir) flag=$argument ;;
        --data | --data=* | --instance[-_]data[-_]dir | --instance[-_]data[-_]dir=*) names_data=1 ;;
        --data[-_]backend[-_]config | --data[-_]backend[-_]config=* | --datasets | --datasets=*) names_data=1 ;;
        --dry-run | --help | -h) only_looks=1 ;;
        esac
    done
    cache=${LTXTRAIN_CACHE_DIR:-${LTXTRAIN_CACHE:-$cache}}
    output=${LTXTRAIN_OUTPUT_DIR:-${LTXTRAIN_OUTPUT:-$output}}
    data=${LTXTRAIN_INSTANCE_DATA_DIR:-${LTXTRAIN_DATA:-$data}}
}

# What an earlier start in this container has set, such as a start command that is a shell and calls this by path, is
# nobody's choice: without this it would stand above a configuration.
forget_own_places() {
    if [ "${LTX_OWN_CACHE:-}" = "${LTXTRAIN_CACHE_DIR:-}" ]; then unset LTXTRAIN_CACHE_DIR; fi
    if [ "${LTX_OWN_OUTPUT:-}" = "${LTXTRAIN_OUTPUT_DIR:-}" ]; then unset LTXTRAIN_OUTPUT_DIR; fi
    unset LTX_OWN_CACHE LTX_OWN_OUTPUT
}

# take_value FLAG VALUE
take_value() {
    case $1 in
    --config) read_names "$2" ;;
    --output*) names_output=$2 ;;
    --cache*) names_cache=$2 ;;
    esac
}

# read_names FILE: which places a configuration (TOML or JSON, options spelled with - or _) names. A wrong guess is
# mild: then a place is not set here, and ltxtrain says what it misses, or takes its own default in /output.
read_names() {
    if [ ! -r "$1" ] || [ -d "$1" ]; then return; fi
    if names_key "$1" 'instance[-_]data[-_]dir|data[-_]backend[-_]config|datasets'; then names_data=1; fi
    if names_key "$1" 'data' '"'; then names_data=1; fi # [data] and "data": {...} are a section's name
    if names_key "$1" 'output|output[-_]dir'; then names_output=in-the-configuration; fi
    if names_key "$1" 'cache|cache[-_]dir' '"'; then names_cache=in-the-configuration; fi
}

# names_key FILE KEYS [VALUE]: whether one of KEYS is given, with a value that begins with VALUE.
names_key() {
    without_tables "$2" "$1" | grep -Eq "(^|[^A-Za-z0-9_-])(--)?($2)[\"']?[[:space:]]*([:=][[:space:]]*${3:+[\"\']}|\\]\\])"
}

# A data set may have a cache_dir of its own, which is not the run's.
without_tables() {
    case $1 in
    *cache*) sed '/^[[:space:]]*\[\[/,/^[[:space:]]*\[[^[]/d' -- "$2" 2>/dev/null ;;
    *) cat -- "$2" 2>/dev/null ;;
    esac
}

# Tell ltxtrain and the libraries. Called as the user that training runs as.
name_places() {
    if [ -z "${LTXTRAIN_CACHE:-}${LTXTRAIN_CACHE_DIR:-}$names_cache" ]; then
        LTXTRAIN_CACHE_DIR=$cache LTX_OWN_CACHE=$cache
        export LTXTRAIN_CACHE_DIR LTX_OWN_CACHE
    fi
    if [ -z "${LTXTRAIN_OUTPUT:-}${LTXTRAIN_OUTPUT_DIR:-}$names_output" ]; then
        LTXTRAIN_OUTPUT_DIR=$output LTX_OWN_OUTPUT=$output
        export LTXTRAIN_OUTPUT_DIR LTX_OWN_OUTPUT
    fi
    name_data
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

# The clips' folder is named only to commands that train on it, and only where nothing else names data: ltxtrain would
# take the variable for more than a configuration's own data sets. In a shell, people name it themselves.
name_data() {
    case $command in train | plan | cache | validate | doctor | launch) ;; *) return ;; esac
    if [ -n "$names_data${LTXTRAIN_INSTANCE_DATA_DIR:-}${LTXTRAIN_DATA:-}" ]; then return; fi
    if [ -n "${LTXTRAIN_DATA_BACKEND_CONFIG:-}${LTXTRAIN_DATASETS:-}" ]; then return; fi
    if holds_something "$data"; then
        keep LTXTRAIN_INSTANCE_DATA_DIR "$data"
    elif [ "$command" = train ] && mountpoint -q "$data"; then
        note "$data is mounted, but holds nothing"
    fi
}

# Also true where the folder cannot be looked into: ltxtrain then says who may not read it.
holds_something() {
    if [ ! -d "$1" ]; then return 1; fi
    if [ ! -r "$1" ]; then return 0; fi
    for entry in "$1"/*; do [ -e "$entry" ] && return 0; done
    return 1
}

# A LoRA that was hours of work must not vanish with `docker run --rm`.
warn_of_loss() {
    if [ -n "$only_looks" ]; then return; fi
    case $names_output in '' | in-the-configuration) ;; *) output=$names_output ;; esac
    case $names_cache in '' | in-the-configuration) ;; *) cache=$names_cache ;; esac
    lost=''
    if [ "$names_output" != in-the-configuration ] && ! lasts "$output"; then lost=$output; fi
    if [ "$names_cache" != in-the-configuration ] && ! lasts "$cache"; then lost=${lost:+$lost and }$cache; fi
    if [ -z "$lost" ]; then return; fi
    case $cloud in
    '') warn "nothing is mounted at $lost: what is written there is lost with this container (say -v ./out:/output -v ./cache:/cache)" ;;
    *) warn "$lost is on no volume of its own: what is written there may be lost when this machine is stopped or deleted" ;;
    esac
}

# lasts FOLDER: whether it lies on something that is mounted, not on the container's own layer.
lasts() {
    nearest=$1
    while [ ! -e "$nearest" ]; do nearest=$(dirname -- "$nearest"); done
    [ "$(df --output=target -- "$nearest" 2>/dev/null | tail -n 1)" != / ]
}
