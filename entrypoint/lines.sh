# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# What the scripts say, all of it on stderr: stdout belongs to the command's own results.

note() { printf 'note: %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# complain WHAT HINT
complain() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; }

# refuse WHAT HINT: leave with the exit code of a wrong configuration.
refuse() {
    complain "$1" "$2"
    exit 2
}

# keep NAME VALUE: export NAME with VALUE unless the user gave it another one.
keep() {
    eval "keep_given=\${$1:-}"
    if [ -z "$keep_given" ]; then eval "$1=\$2"; fi
    export "${1?}"
}

# writable FOLDER: whether this user can make files there. On a read-only file system nobody can, root included.
writable() { [ -d "$1" ] && [ -w "$1" ] && [ -x "$1" ]; }
