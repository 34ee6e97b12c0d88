#!/bin/sh
# The image's HEALTHCHECK. A run is healthy as long as it gives signs of life; where no run is, there is nothing to be
# ill. Exit code 0 healthy, 1 unhealthy.
set -u
here=$(dirname -- "$(readlink -f -- "$0")")
for part in lines heartbeat; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

limit=${LTX_HEARTBEAT_SECONDS:-900}
case $limit in
'' | *[!0-9]*)
    echo "LTX_HEARTBEAT_SECONDS=$limit is no number of seconds: 900 is taken"
    limit=900
    ;;
esac

# Both places are looked at: this runs as the image's user, to whom another one may seem the best.
heartbeat_places | {
    while IFS= read -r place; do
        written=$(stat -c %Y -- "$place" 2>/dev/null) || continue
        age=$(($(date +%s) - written))
        if [ "$age" -gt "$limit" ]; then
            echo "unhealthy: no sign of life for $age s (the limit is $limit s): $(head -c 300 -- "$place" 2>/dev/null)"
            exit 1
        fi
        echo "healthy: a sign of life $age s ago"
        exit 0
    done
    echo "healthy: no run is going on"
}
