#!/usr/bin/env bash
# Runs every check, also after one has failed, and fails if any did. Takes the folder to check (default: the repository).
set -uo pipefail
cd "${1:-$(dirname "$0")/..}" || exit 2

failed=()
check() {
    local name=$1
    shift
    if output=$("$@" 2>&1); then
        echo "ok      $name"
    else
        echo "FAILED  $name: $*"
        echo "$output"
        failed+=("$name")
    fi
}

check format ruff format --check --output-format concise .
check rules ruff check --output-format concise .
check types mypy
check floors lint-imports --no-cache --no-logo
check sizes python scripts/sizes.py
check reference python scripts/reference.py --check

# Kinds of file that the folder does not hold are passed over.
scripts=()
while IFS= read -r file; do scripts+=("$file"); done < <(
    find entrypoint scripts deploy .ci -type f \( -name '*.sh' -o -path .ci/run \) 2>/dev/null | sort
)
((${#scripts[@]})) && check shell shellcheck "${scripts[@]}"

images=()
for file in Dockerfile.cuda Dockerfile.rocm Dockerfile.cpu; do [[ -f $file ]] && images+=("$file"); done
if ((${#images[@]})); then
    check dockerfiles hadolint "${images[@]}"
    check policy python scripts/policy.py
fi

if ((${#failed[@]})); then
    echo "lint: failed: ${failed[*]}"
    exit 1
fi
