#!/usr/bin/env bash
# wheels.sh FOLDER [TORCH]: fetch the locked wheels of an image with this machine's pip, for a build without a network.
#
# TORCH (default cpu) is the kind of torch. The wheels are for the base image's Python ($IMAGE_PYTHON, default 3.11, that of
# Debian 12), whatever Python this machine has, and for this machine's processor ($IMAGE_MACHINE: x86_64 or aarch64). A
# folder that was filled from the same lists is left as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:?usage: wheels.sh FOLDER [TORCH]}
torch=${2:-cpu}
python=${PYTHON:-python3}
target=${IMAGE_PYTHON:-3.11}
machine=${IMAGE_MACHINE:-$(uname -m)}
machine=${machine/arm64/aarch64} # as Macs call it
lists=(requirements/lock.txt requirements/sbom.txt)

filled_from() {
    echo "$target $machine $torch"
    cat "${lists[@]}" "requirements/torch-$torch.txt" scripts/image/wheels.sh
}
if filled_from | cmp -s - "$folder/.filled-from"; then exit 0; fi
mkdir -p "$folder"
rm -f "$folder"/*.whl "$folder/.filled-from" # and nothing else: the folder is one that somebody named
options=(--only-binary=:all: --python-version "$target" --implementation cp --abi "cp${target/./}" --abi abi3 --abi none)
options+=(--platform any)
for name in linux manylinux1 manylinux2010 manylinux2014; do options+=(--platform "${name}_$machine"); done
for minor in $(seq 17 36); do options+=(--platform "manylinux_2_${minor}_$machine"); done # Debian 12's C library is 2.36
for list in "${lists[@]}"; do
    "$python" -m pip download -qq --disable-pip-version-check --no-deps --require-hashes "${options[@]}" \
        --dest "$folder" --requirement "$list"
done
"$python" scripts/install_torch.py "$torch" --download "$folder" "${options[@]}"
filled_from >"$folder/.filled-from"
