#!/usr/bin/env bash
# wheels.sh FOLDER [TORCH]: fetch the locked wheels of an image with this machine's pip, for a build without a network.
#
# TORCH (default cpu) is the kind of torch to fetch as well, or `none`. The wheels are for the image's Python, whatever
# Python this machine has. A folder that was filled from the same lists is left as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:?usage: wheels.sh FOLDER [TORCH]}
torch=${2:-cpu}
python=${PYTHON:-python3}
lists=(requirements/lock.txt requirements/sbom.txt)
[ "$torch" = none ] || lists+=("requirements/torch-$torch.txt")

stamp=$(cat "${lists[@]}" "$0" | sha256sum)
if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -rf "$folder"
mkdir -p "$folder"
for list in "${lists[@]}"; do
    # One list at a time: pip takes torch's wheel for the CPU from its own folder only when no other list is there.
    "$python" -m pip download -qq --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform linux_x86_64 --platform any \
        --dest "$folder" --requirement "$list"
done
echo "$stamp" >"$folder/.stamp"
