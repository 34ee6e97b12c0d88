# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# What `docker run IMAGE` says: what to mount and what to type.

welcome() {
    case $(sed -n 's/.*"kind": *"\([a-z]*\)".*/\1/p' "${LTX_IMAGE:-/nowhere}" 2>/dev/null | head -n 1) in
    cuda) gpu='--gpus all' preset=bf16 ;;
    rocm) gpu='--device=/dev/kfd --device=/dev/dri --ipc=host' preset=rocm-mi300x ;;
    cpu) gpu='' preset=smoke ;;
    *) gpu='--gpus all' preset=bf16 ;; # scripts outside of an image
    esac
    echo 'ltxtrain: clips in, a LoRA for LTX-Video out.'
    if [ -n "$cloud" ]; then welcome_on_cloud; else welcome_at_home; fi
}

welcome_on_cloud() {
    cat <<END

On this cloud: clips in $data, each with a .txt file of the same name (its caption); caches in $cache,
results in $output. Type here, or put into the start command:

  ltxtrain COMMAND

COMMAND is one of
END
    offer_commands
}

welcome_at_home() {
    cat <<END

Three folders are mounted:
  ./clips  at /data    your clips, each with a .txt file of the same name: its caption (read only is fine)
  ./cache  at /cache   the model and everything computed once; keep it
  ./out    at /output  the LoRA, checkpoints, videos and the report

  docker run --rm -it ${gpu:+$gpu }-v ./clips:/data -v ./cache:/cache -v ./out:/output IMAGE COMMAND

COMMAND is one of
END
    offer_commands
    cat <<END

Put -e HF_TOKEN before IMAGE for models that ask for a token, or -v ./hf_token:/run/secrets/HF_TOKEN:ro for a file.
Files belong to the owner of ./out; to choose: --user "\$(id -u):\$(id -g)", or -e PUID=1000 -e PGID=1000.
END
}

offer_commands() {
    offer doctor 'check this machine: driver, GPU, folders, token'
    offer "plan --preset $preset" 'what training would do; needs no GPU'
    if [ "$preset" != smoke ]; then
        offer "train --preset $preset" 'train; started again after a stop, it goes on'
    fi
    offer 'train --preset smoke' 'the whole line with a tiny model, to try it; without clips it makes some'
    offer --help 'all commands'
    if [ -z "$cloud" ]; then offer bash 'a shell'; fi
    cat <<END

Presets: bf16 for NVIDIA, rocm-mi300x for AMD's MI300X; \`presets\` lists them all.
END
}

offer() { printf '  %-28s%s\n' "$1" "$2"; }

# Without a command there is nothing to wait for, but for people who come by ssh; where LTX_ON_EXIT says so, too: a
# cloud would start a container that ends again and again.
rest_if_reachable() {
    if [ -z "$reachable" ] && [ "$on_exit" = exit ]; then return; fi
    code=0
    listen
    note "nothing is to be done; waiting"
    rest
}
