#!/bin/sh
# settle FOLDER...: make what was installed the same bytes in every build, and ready to run from a read-only image.
#
# Bytecode is compiled now and never compared with its source: by default it holds the time of installation, which
# differs from build to build, and which the builder may change, so that it would be compiled again at every start.
set -eu

for folder in "$@"; do
    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
    # Files that are no Python 3 (templates, samples of other versions) are passed over.
    python3 -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$folder" || true
    # Programs that pip wrote for its own Python belong to the environment that the image runs.
    if [ -d "$folder/bin" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
        find "$folder/bin" -type f -exec sed -i '1s|^#!/opt/tools/bin/python[0-9.]*|#!/opt/venv/bin/python|' {} +
    fi
    find "$folder" -exec touch --no-dereference --date=2026-01-01T00:00:00Z {} +
done
