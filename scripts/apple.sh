#!/bin/sh
# apple.sh: set ltxtrain up on an Apple computer with an M-series chip. There is no image for it: no container on macOS
# reaches the GPU. It checks the machine, runs `make setup`, writes .venv/apple.env and says what to type next.
# Dockerfile.mps-notes tells what works there and what does not.
set -eu
cd "$(dirname "$0")/.."

oldest=14
need_gb=3

# refuse WHAT HINT: the exit code is ltxtrain's own for the machine.
refuse() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 4
}

warn() { printf 'warning: %s\nhint: %s\n' "$1" "$2" >&2; }

check_machine() {
    system=$(uname -s)
    [ "$system" = Darwin ] ||
        refuse "this is $system, not macOS" "make setup TORCH=cu129 for NVIDIA, TORCH=rocm72 for AMD"
    machine=$(uname -m)
    if [ "$machine" != arm64 ]; then
        if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then
            refuse "this shell runs under Rosetta, as $machine" "arch -arm64 /bin/sh scripts/apple.sh"
        fi
        refuse "this Mac has an Intel processor, and torch 2.13 has no build for it" "take a Mac with an M-series chip"
    fi
    version=$(sw_vers -productVersion)
    # Torch 2.13 has no wheel for an older one. bfloat16 needs the same release.
    [ "${version%%.*}" -ge "$oldest" ] ||
        refuse "macOS $version is too old: torch 2.13 and bfloat16 need macOS $oldest" \
            "update in System Settings, General, Software Update"
    gigabytes=$(($(sysctl -n hw.memsize) / 1073741824))
    chip=$(sysctl -n machdep.cpu.brand_string)
    echo "apple: $chip, $gigabytes GB, macOS $version"
    [ "$gigabytes" -ge 24 ] ||
        warn "$gigabytes GB of memory are shared by macOS and the GPU; the preset apple-mps is for 24 GB or more" \
            "close other programs, and try --resolution 256 --num-frames 25 first"
}

check_tools() {
    xcode-select -p >/dev/null 2>&1 ||
        refuse "the command line tools are not there (make, git)" "xcode-select --install"
    free_gb=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1048576))
    [ "$free_gb" -ge "$need_gb" ] ||
        refuse "$free_gb GB are free on this disk; the packages need $need_gb GB, a model more" "free some space"
}

# The first Python that will do. That of macOS itself is too old; one for Intel would bring packages for Intel.
find_python() {
    for name in python3.12 python3.13 python3.11 python3; do
        path=$(command -v "$name") || continue
        if "$path" -c 'import ensurepip, platform, sys, venv
sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and platform.machine() == "arm64"))' 2>/dev/null; then
            echo "$path"
            return
        fi
    done
    return 1
}

# What was set before stays.
write_variables() {
    cat >.venv/apple.env <<'ENV'
# Read it with: . .venv/apple.env
# An operation that Metal lacks runs on the CPU instead of ending the run. Read when torch is imported.
export PYTORCH_ENABLE_MPS_FALLBACK="${PYTORCH_ENABLE_MPS_FALLBACK:-1}"
# Torch's own limit, 1.7, lies above the memory that there is: a run that is too large would swap for hours instead of
# saying so. The low limit has to come down with the high one, because its own value is 1.4.
export PYTORCH_MPS_HIGH_WATERMARK_RATIO="${PYTORCH_MPS_HIGH_WATERMARK_RATIO:-0.9}"
export PYTORCH_MPS_LOW_WATERMARK_RATIO="${PYTORCH_MPS_LOW_WATERMARK_RATIO:-0.7}"
ENV
}

check_machine
check_tools
if [ -x .venv/bin/python ]; then
    make setup
else
    python=$(find_python) ||
        refuse "no Python 3.11, 3.12 or 3.13 for arm64 is on the PATH" \
            "brew install python@3.12, or the installer of python.org"
    make setup PYTHON="$python"
fi
write_variables
cat <<'NEXT'
apple: ready. In each new shell, first:
  . .venv/apple.env
then:
  make demo                                                     a tiny model, about a minute
  .venv/bin/ltxtrain doctor --preset apple-mps                  a line for each thing that could be in the way
  .venv/bin/ltxtrain plan --preset apple-mps --data CLIPS       what a run would do, and its memory
  .venv/bin/ltxtrain train --preset apple-mps --data CLIPS
NEXT
