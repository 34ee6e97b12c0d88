#!/usr/bin/env bash
# engine.sh up|down [FOLDER]: a private container engine for `make image-test`, made of Debian's packages.
#
# `up` uses the engine that answers already, if there is one. Else, as root on Debian, it installs Docker and BuildKit
# (once) and starts them with everything under FOLDER (default: $LTX_ENGINE, else /var/tmp/ltxtrain-engine). It writes
# FOLDER/env: DOCKER_HOST, and BUILD_NETWORK where builds cannot use a bridge. What was built stays for the next time.
# Exit code: 0 an engine answers, 77 none can run here (the reason is printed), anything else: a fault.
set -uo pipefail

action=${1:-}
folder=${2:-${LTX_ENGINE:-/var/tmp/ltxtrain-engine}}
socket=unix://$folder/docker.sock
# Debian's own 12 has Docker 20.10, whose BuildKit knows no heredocs and no named contexts. The packages of the release
# after it need nothing newer than 12's C library, so apt installs them beside the rest of 12.
newer=trixie
needed_kib=$((7 * 1024 * 1024))

fault() { say "$*"; exit 1; }
say() { printf 'engine: %s\n' "$*" >&2; }
cannot() { say "$*"; exit 77; }

answers() { DOCKER_HOST=${1:-} docker info >/dev/null 2>&1 && DOCKER_HOST=${1:-} docker buildx version >/dev/null 2>&1; }

mirror() { # the address that apt of this machine takes Debian from
    local address
    address=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '/^URIs:/ { print $2; exit }')
    [ -n "$address" ] || address=$(awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) { print $i; exit } }' /etc/apt/sources.list 2>/dev/null)
    printf '%s' "$address"
}

install_packages() {
    local address apt
    address=$(mirror)
    [ -n "$address" ] || cannot "apt has no address to take packages from"
    apt=$folder/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    for suite in "$VERSION_CODENAME" "$VERSION_CODENAME-updates" "$newer"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $address $suite main"
    done | sort -u >"$apt/sources.list"
    # Priority 100: only what is named with /$newer comes from there, and what it needs.
    printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$newer" >"$apt/preferences"
    local options=(
        -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::Etc::preferences=$apt/preferences" -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3
    )
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get "${options[@]}" update -qq >"$apt/log" 2>&1 ||
        ! apt-get "${options[@]}" install -yqq --no-install-recommends \
            "docker.io/$newer" "docker-cli/$newer" "docker-buildx/$newer" "containerd/$newer" \
            runc iptables debootstrap >>"$apt/log" 2>&1; then
        cannot "the packages could not be installed: $(grep -m 1 '^E:' "$apt/log")"
    fi
    rm -rf "$apt/cache"
}

start() { # start dockerd with these options; false when it does not come up
    setsid dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/docker.pid" \
        --host "$socket" "$@" >"$folder/dockerd.log" 2>&1 </dev/null &
    local pid=$!
    for _ in $(seq 150); do
        answers "$socket" && return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.2
    done
    kill "$pid"
    return 1
}

tell() { # how docker reaches the private engine; with an argument: the network that builds have to take
    echo "export DOCKER_HOST=$socket" >"$folder/env"
    [ -z "${1:-}" ] || echo "export BUILD_NETWORK=$1" >>"$folder/env"
}

up() {
    mkdir -p "$folder"
    # What is read from it is believed, and anybody may make a folder in /var/tmp.
    [ -O "$folder" ] || fault "$folder belongs to somebody else: name another folder in LTX_ENGINE"
    if [ "${DOCKER_HOST:-}" != "$socket" ] && answers "${DOCKER_HOST:-}"; then : >"$folder/env"; return; fi
    # Left by another run. Only an engine without a bridge makes builds take the host's network.
    if answers "$socket"; then
        if DOCKER_HOST=$socket docker network inspect bridge >/dev/null 2>&1; then tell; else tell host; fi
        return
    fi
    [ "$(uname -s)" = Linux ] || cannot "no engine answers: start Docker first"
    [ "$(id -u)" = 0 ] || cannot "no engine answers, and only root can start one"
    # shellcheck disable=SC1091
    . /etc/os-release
    [ "${ID:-}" = debian ] && [ "${VERSION_CODENAME:-}" = bookworm ] || cannot "no engine answers, and this is not Debian 12"
    [ "$(df --output=avail -k "$folder" | tail -1)" -gt "$needed_kib" ] || cannot "less than 7 GiB are free in $folder"
    if ! command -v dockerd >/dev/null || ! docker buildx version >/dev/null 2>&1 || ! command -v debootstrap >/dev/null; then
        install_packages
    fi
    if start; then tell
    elif start --iptables=false --ip6tables=false --bridge=none; then tell host
    elif start --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs; then tell host
    else cannot "dockerd does not start: $(grep -iE 'level=fatal|failed to' "$folder/dockerd.log" | tail -1)"; fi
}

down() { # end the private engine and leave no mount behind; images and caches stay
    local pid
    pid=$(cat "$folder/docker.pid" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null
    for _ in $(seq 100); do
        [ -e "$folder/docker.pid" ] || break
        sleep 0.1
    done
    awk -v within="$folder/" 'index($2, within) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
}

case $action in
    up) up ;;
    down) down ;;
    *) echo "usage: engine.sh up|down [FOLDER]" >&2; exit 2 ;;
esac
