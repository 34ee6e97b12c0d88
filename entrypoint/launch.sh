#!/bin/sh
# The command `ltxtrain` of the image. Where the entrypoint has prepared this process it becomes the program at once;
# where not (docker exec, a shell of a cloud's own), it goes through the entrypoint first: so everything that is started
# in a container has the same user, places and secrets.
set -u

# name_places sets the mark, so this cannot go round in a circle.
if [ "${LTX_PREPARED:-}" = 1 ]; then exec /opt/venv/bin/python -P -m ltxtrain "$@"; fi

# Process 1 is the container's own command, by --entrypoint or in Kubernetes. Everything else runs beside that one.
if [ "$$" != 1 ]; then
    LTX_BESIDE=1
    export LTX_BESIDE
fi
exec /opt/ltxtrain/entrypoint/entrypoint.sh ltxtrain "$@"
