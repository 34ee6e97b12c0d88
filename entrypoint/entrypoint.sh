#!/bin/sh
# The first program of the container: it makes the place fit for training, becomes an ordinary user, and then becomes
# ltxtrain. docs/container.md tells what it does for people; each file beside this one holds one part.
#
# It is started by tini in most containers, and by its path where a cloud replaces the image's start (Vast's on-start).
# As root it runs twice: the first time as root, the second time as the user that training belongs to.
set -u

here=$(dirname -- "$(readlink -f -- "$0")") # the scripts' own folder, also when called through a link
for part in lines secrets cloud places user sshd heartbeat welcome finish; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

# How the first time around, as root, has handed over. Root itself always begins at the beginning.
again='' reachable=''
if [ "$(id -u)" != 0 ]; then again=${LTX_ENTERED:-}; fi
# shellcheck disable=SC2034 # welcome.sh reads it
if [ "$again" = reachable ]; then reachable=1; fi
unset LTX_ENTERED

# launch.sh says so of what runs beside the container's own command: LTX_ON_EXIT, LTX_LOG, the sign of life and sshd are
# that one's alone.
beside=${LTX_BESIDE:-}
if [ -n "$beside" ]; then unset LTX_ON_EXIT LTX_LOG; fi

command=${1:-} # `IMAGE train` and `IMAGE ltxtrain train` are the same
if [ "$command" = ltxtrain ]; then command=${2:-}; fi

# A shell on Vast may come without the image's PATH.
command -v ltxtrain >/dev/null 2>&1 || PATH=$PATH:/opt/venv/bin:/usr/local/bin

if [ -z "$again" ]; then read_secrets; fi # before root is left: a secret's file may be for root alone
recognise_cloud
check_on_exit
find_places
if [ -z "$again" ]; then
    if [ -z "$beside" ]; then start_sshd; fi
    leave_root "$@" # comes back only where this user stays
fi
name_places
settle_home
if [ -z "$beside" ]; then heartbeat_here; else unset LTX_HEARTBEAT LTX_BESIDE; fi

case ${1:-} in
'')
    welcome
    rest_if_reachable
    exit 0
    ;;
bash | sh | python | python3 | sleep | nvidia-smi | amd-smi | rocm-smi | env | id | cat | ls | /*)
    if ! command -v "$1" >/dev/null 2>&1; then
        complain "there is no program $1 in this container" "leave it out: what ltxtrain can do is listed by --help"
        exit 127
    fi
    exec "$@"
    ;;
ltxtrain) shift ;;
esac

if [ "$command" = train ]; then
    if [ -z "$beside" ]; then take_turn; fi
    note_empty_data
fi
run ltxtrain "$@"
