# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# ssh into the container: only in the image's cloud stage, only with a key given, only by key. RunPod gives PUBLIC_KEY;
# SSH_PUBLIC_KEY is what images on Vast read.

# Sets $reachable when a sshd of ours runs.
start_sshd() {
    reachable=''
    if [ -z "${PUBLIC_KEY:-}${SSH_PUBLIC_KEY:-}" ]; then return; fi
    sshd=$(command -v sshd) || sshd=/usr/sbin/sshd
    if [ "${LTX_STAGE:-}" != cloud ] || [ ! -x "$sshd" ]; then
        note "an ssh key is given, but this image has no sshd: the image's cloud stage has one"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        note "no sshd is started: it needs root, and this is user $(id -u)"
        return
    fi
    ssh_port=${LTX_SSH_PORT:-22}
    if port_taken "$ssh_port"; then return; fi # Vast's own sshd, or ours from an earlier call
    if ! ssh_keys >/dev/null; then
        warn "PUBLIC_KEY or SSH_PUBLIC_KEY holds no ssh public key: no sshd is started"
        return
    fi
    ssh_home=/run/ltxtrain-sshd
    # sshd trusts no keys in a folder that others may write to, as a tmpfs at /run may be.
    case $(stat -c %A /run) in ????????w?) ssh_home='' ;; esac
    if [ -z "$ssh_home" ] || ! writable /run; then ssh_home=/root/.ltxtrain-sshd; fi
    if ! (umask 077 && mkdir -p "$ssh_home") 2>/dev/null; then
        warn "no sshd is started: $ssh_home cannot be written"
        return
    fi
    mkdir -p /run/sshd 2>/dev/null # sshd's own empty folder
    write_sshd_files
    # Without this shell's environment: it may hold secrets, and sshd has no use for it.
    if env -i "PATH=$PATH" "$sshd" -f "$ssh_home/sshd_config" -E "$ssh_home/sshd.log" </dev/null; then
        reachable=1
        note "sshd listens on port $ssh_port, for $(ssh_keys | wc -l) key(s)"
    else
        warn "sshd did not start: $(tail -n 1 "$ssh_home/sshd.log" 2>/dev/null)"
    fi
}

# port_taken PORT: whether something listens there (state 0A).
port_taken() {
    grep -Eqi "^ *[0-9]+: [0-9A-F]+:$(printf '%04X' "$1" 2>/dev/null) [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# The keys, one a line; some consoles hand several over with a written \n. A private key pasted by mistake is no key.
ssh_keys() {
    printf '%s\n%s\n' "${PUBLIC_KEY:-}" "${SSH_PUBLIC_KEY:-}" | sed 's/\\n/\n/g; s/\r//g' |
        grep -E '^(ssh-(ed25519|rsa)|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) AAAA[A-Za-z0-9+/=]+( |$)' | sort -u | grep .
}

write_sshd_files() {
    ssh_keys >"$ssh_home/authorized_keys"
    # Made here, not in the image: a key that everybody can pull is no key.
    if [ ! -s "$ssh_home/host_key" ]; then
        rm -f "$ssh_home/host_key"
        ssh-keygen -q -t ed25519 -N '' -C ltxtrain -f "$ssh_home/host_key" </dev/null
    fi
    cat >"$ssh_home/sshd_config" <<END
Port $ssh_port
HostKey $ssh_home/host_key
PidFile $ssh_home/sshd.pid
AuthorizedKeysFile $ssh_home/authorized_keys
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin prohibit-password
UsePAM no
X11Forwarding no
PrintMotd no
Subsystem sftp internal-sftp
SetEnv $(session_variables)
END
}

# What a session by ssh needs to find programs and places: a few harmless names, and no secret among them. sshd takes
# them from its configuration, in one line, so that no file of variables is needed.
session_variables() {
    line_end='
'
    name_places
    for name in PATH HF_HOME TORCH_HOME TRITON_CACHE_DIR TORCHINDUCTOR_CACHE_DIR XDG_CACHE_HOME \
        LTX_CACHE_DIR LTX_OUTPUT_DIR LTX_PREPARED LTX_WORKSPACE LTX_IMAGE RUNPOD_POD_ID VAST_CONTAINERLABEL; do
        value=''
        eval "value=\${$name:-}"
        # What cannot stand between quotes in one line is left out.
        case $value in '' | *[\"\\]* | *"$line_end"*) continue ;; esac
        printf '"%s=%s" ' "$name" "$value"
    done
}
