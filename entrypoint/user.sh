# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# Training runs as an ordinary user, the one whose folders are mounted: so the files it makes belong to that user.

# leave_root ARGUMENT...: start this script again as PUID:PGID. Comes back where the user stays as it is.
leave_root() {
    check_number PUID "${PUID:-}"
    check_number PGID "${PGID:-}"
    if [ "$(id -u)" != 0 ]; then
        if [ -n "${PUID:-}" ] && [ "$PUID" != "$(id -u)" ]; then
            note "PUID=$PUID is not used: this container was started as user $(id -u)"
        fi
        return
    fi
    # On clouds the volume belongs to root, and people come in by ssh as root.
    if [ "${LTX_RUN_AS_ROOT:-}" = 1 ] || [ "${PUID:-}" = 0 ] || [ -n "$cloud" ]; then return; fi
    if in_user_namespace; then
        explain "this stays root, which outside of the container is an ordinary user already (rootless engine);" \
            "PUID and PGID are not used"
        return
    fi
    owner=$(folders_owner)
    uid=${PUID:-${owner%%:*}}
    gid=${PGID:-${PUID:-${owner##*:}}}
    # Not --init-groups: it would drop the groups that docker run --group-add gave.
    change_user="setpriv --reuid=$uid --regid=$gid --groups=$(kept_groups) --inh-caps=-all --no-new-privs --"
    # shellcheck disable=SC2086 # words on purpose
    if ! $change_user true 2>/dev/null; then
        explain "this stays root, for the container may not change its user (--cap-drop);" \
            "better start it as yours: docker run --user \"\$(id -u):\$(id -g)\""
        return
    fi
    if [ -z "${PUID:-}${PGID:-}" ] && roots_own; then
        explain "this stays root, for $output or $cache holds files of root's;" \
            "another user is chosen by -e PUID=1000 -e PGID=1000 and must own them"
        return
    fi
    own_folders
    LTX_ENTERED=${reachable:+reachable}
    LTX_ENTERED=${LTX_ENTERED:-again}
    export LTX_ENTERED
    # shellcheck disable=SC2086
    exec $change_user "$here/entrypoint.sh" "$@"
}

# Why the user stays root: said once, by the container's own command.
explain() { if [ -z "$beside" ]; then note "$@"; fi; }

# check_number NAME VALUE
check_number() {
    case $2 in
    *[!0-9]* | ??????????*) refuse "$1 is '$2', which is no user or group number" "say $1=1000; \`id\` tells yours" ;;
    esac
}

# In a rootless engine root is the user who started it: leaving it would be becoming somebody who owns nothing there.
in_user_namespace() {
    read -r inside outside count </proc/self/uid_map 2>/dev/null || return 1
    [ "$inside $outside $count" != '0 0 4294967295' ]
}

# The owner of the first folder that is not root's. Folders that docker run -v has made itself are root's.
folders_owner() {
    for folder in "$output" "$cache" "$data"; do
        owner=$(stat -L -c %u:%g -- "$folder" 2>/dev/null) || continue
        if [ "${owner%%:*}" != 0 ]; then
            echo "$owner"
            return
        fi
    done
    echo 10001:10001
}

# Whether all folders that are there belong to root, and what lies in them too, as on a machine where everything is done
# as root: no other user could go on with these files. lost+found is root's on every disk.
roots_own() {
    for folder in "$output" "$cache" "$data"; do
        case $(stat -L -c %u -- "$folder" 2>/dev/null) in '' | 0) ;; *) return 1 ;; esac
    done
    [ -n "$(find -H "$output" "$cache" -mindepth 1 -maxdepth 1 -user 0 ! -name lost+found -print -quit 2>/dev/null)" ]
}

# The groups of this process but root's own, and those that own the GPUs that the container was given: a device that
# root may open must not be out of reach for the user.
kept_groups() {
    kept=$gid
    for group in $(id -G) $(stat -c %g /dev/kfd /dev/dri/* /dev/nvidia* 2>/dev/null); do
        if [ "$group" != 0 ]; then kept=$kept,$group; fi
    done
    echo "$kept"
}

# Give root's own /cache and /output to the user: the folder alone, never what is in it, and never /data. Folders that
# everybody may write to, as those of the image, are left as they are.
own_folders() {
    for folder in /cache /output; do
        if [ ! -d "$folder" ] || [ "$(stat -c %u "$folder")" != 0 ]; then continue; fi
        case $(stat -c %A "$folder") in ????????w?) continue ;; esac
        chown "$uid:$gid" "$folder" 2>/dev/null ||
            warn "$folder belongs to root and cannot be given to user $uid: chown it on the host"
    done
}

# HOME, TMPDIR and a name for whoever this is now: a user that the image does not know has / as home, and none of
# root's folders are of use to others.
settle_home() {
    settle_tmp
    if [ "$(id -u)" != 0 ]; then
        # Python asks for a name, and there is none for most numbers.
        USER=$(id -un 2>/dev/null) || USER=ltx
        LOGNAME=$USER
        export USER LOGNAME
    fi
    if writable "${HOME:-}" && [ "$HOME" != / ]; then return; fi
    HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d : -f 6)
    if ! writable "$HOME" || [ "$HOME" = / ]; then HOME=${TMPDIR:-/tmp}; fi
    export HOME
}

settle_tmp() {
    if writable "${TMPDIR:-/tmp}"; then return; fi
    for place in /tmp "$cache/tmp" /dev/shm "$output/.tmp"; do
        case $place in "$cache/tmp" | "$output/.tmp") mkdir -p -- "$place" 2>/dev/null ;; esac
        if writable "$place"; then
            TMPDIR=$place
            export TMPDIR
            return
        fi
    done
    warn "there is no place for temporary files: say docker run --tmpfs /tmp"
}
