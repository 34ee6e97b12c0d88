# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# What `docker run IMAGE` says: what to mount and what to type.

welcome() {
    case $(sed -n 's/.*"kind": *"\([a-z]*\)".*/\1/p' "${LTX_IMAGE:-/nowhere}" 2>/dev/null | head -n 1) in
    cuda) gpu='--gpus all' preset=bf16 ;;
    rocm) gpu='--device=/dev/kfd --device=/dev/dri --ipc=host' preset=rocm-mi300x ;;
    cpu) gpu='' preset=smoke ;;
    *) gpu='--gpus all' preset=bf16 ;; # scripts outside of an image
    esac
    run_line="docker run --rm -it ${gpu:+$gpu }-v ./clips:/data -v ./cache:/cache -v ./out:/output IMAGE"
    cat <<END
ltxtrain: clips in, a LoRA for LTX-Video out.

Three folders are mounted:
  ./clips  at /data    your clips, each with a .txt file of the same name: its caption (read only is fine)
  ./cache  at /cache   the model and everything computed once; keep it
  ./out    at /output  the LoRA, checkpoints, videos and the report

  $run_line COMMAND

COMMAND is one of
END
    offer doctor 'check this machine: driver, GPU, folders, token'
    offer "plan --preset $preset" 'what training would do; needs no GPU'
    offer "train --preset $preset" 'train; started again after a stop, it goes on'
    offer 'train --preset smoke' 'the whole line in a minute, with a tiny model and made clips'
    offer --help 'all commands'
    offer bash 'a shell'
    cat <<END

Presets: bf16 for NVIDIA, rocm-mi300x for AMD's MI300X; \`presets\` lists them all.
Put -e HF_TOKEN before IMAGE for models that ask for a token, or mount a file and set HF_TOKEN_FILE.
Files belong to the owner of ./out; to choose: --user "\$(id -u):\$(id -g)", or -e PUID=1000 -e PGID=1000.
END
    if [ -n "$cloud" ]; then
        cat <<END

On this cloud: clips in $data, caches in $cache, results in $output.
  ltxtrain train --preset $preset --data $data
END
    fi
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
