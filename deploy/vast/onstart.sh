#!/bin/sh
# Vast runs this text at every start of an instance in its ssh and jupyter modes, in which it puts its own entrypoint
# in the place of the image's. It returns at once; the work goes on behind it and is written to /workspace/ltxtrain.log.
# Training waits for the file /workspace/go, so that it does not begin on half of your clips. After an interruption the
# file is there already, and training goes on by itself. No variable is written to a file.
set -eu
mkdir -p /workspace/data
# Vast has an ssh server of its own in these modes: the image's must not start beside it.
unset SSH_PUBLIC_KEY PUBLIC_KEY
# The words after `start` are the command; deploy/render.py puts yours there.
nohup sh -c '
    flock -n 8 || { echo "waiting already: touch /workspace/go"; exit 0; }
    [ -e /workspace/go ] || echo "waiting: copy clips to /workspace/data, then: touch /workspace/go"
    until [ -e /workspace/go ]; do sleep 5; done
    exec /opt/ltxtrain/entrypoint/entrypoint.sh "$@" 8>&-
' start \
    train --preset bf16 --yes \
    >>/workspace/ltxtrain.log 2>&1 </dev/null 8>/tmp/ltxtrain-onstart.lock &
