#!/usr/bin/env bash
# wheels.sh FOLDER [TORCH]: fetch the locked wheels of an image with this machine's pip, for a build without a network.
#
# TORCH (default cpu) is the kind of torch. The wheels are for the base image's Python ($IMAGE_PYTHON, default 3.11, that of
# Debian 12), whatever Python this machine has. A folder that was filled from the same lists is left as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:?usage: wheels.sh FOLDER [TORCH]}
torch=${2:-cpu}
python=${PYTHON:-python3}
target=${IMAGE_PYTHON:-3.11}
lists=(requirements/lock.txt requirements/sbom.txt "requirements/torch-$torch.txt")

stamp="$target $(cat "${lists[@]}" "$0" | sha256sum)"
if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -rf "$folder"
mkdir -p "$folder"
platforms=(--platform any --platform linux_x86_64 --platform manylinux1_x86_64 --platform manylinux2010_x86_64)
platforms+=(--platform manylinux2014_x86_64)
for minor in $(seq 17 36); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done # Debian 12's C library is 2.36
for list in "${lists[@]}"; do
    # One list at a time: pip takes torch's wheel for the CPU from its own folder only when no other list is there.
    "$python" -m pip download -qq --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --python-version "$target" --implementation cp --abi "cp${target/./}" --abi abi3 --abi none \
        "${platforms[@]}" \
        --dest "$folder" --requirement "$list"
done
echo "$stamp" >"$folder/.stamp"
