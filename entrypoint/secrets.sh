# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# Secrets come from the environment, from the file that NAME_FILE names, or from /run/secrets/NAME, in this order.
# A value is never printed, never written to a file and never an argument: arguments are seen by every process.

secret_names='HF_TOKEN WANDB_API_KEY RUNPOD_API_KEY CONTAINER_API_KEY'

read_secrets() {
    for secret_name in $secret_names; do
        drop_unfilled
        eval "secret_file=\${${secret_name}_FILE:-}"
        if [ -n "$secret_file" ]; then
            if [ -c "$secret_file" ]; then
                : # /dev/null is how no secret is named where one must be
            elif readable_file "$secret_file"; then
                take_secret "${secret_name}_FILE"
            else
                # A secret itself in the place of a path is not shown.
                case $secret_file in /* | ./* | ../* | '~'*) ;; *) secret_file="a file" ;; esac
                refuse "${secret_name}_FILE names $secret_file, which cannot be read by user $(id -u)" \
                    "mount the file: -v ./token:/run/secrets/$secret_name:ro, and unset ${secret_name}_FILE; a secret itself goes into $secret_name"
            fi
            # Its work is done, and the user that training runs as may not be allowed to open the file.
            unset "${secret_name}_FILE"
        fi
        secret_file=/run/secrets/$secret_name
        if [ ! -s "$secret_file" ]; then continue; fi # an empty one and a device stand for none
        if [ -f "$secret_file" ] && [ -r "$secret_file" ]; then
            take_secret "$secret_file"
        elif ! given "$secret_name"; then
            warn "$secret_file cannot be read by user $(id -u): $secret_name is not set"
        fi
    done
    unset secret_value secret_before
    # ltxtrain need not look into /run/secrets again: what is for root alone it could only complain of.
    LTX_SECRETS_READ=1
    export LTX_SECRETS_READ
}

readable_file() { [ -f "$1" ] || [ -p "$1" ] && [ -r "$1" ]; }

# What is left of a template's {{ RUNPOD_SECRET_name }} where there is no such secret.
drop_unfilled() {
    eval "secret_value=\${$secret_name:-}"
    case $secret_value in
    '{{ RUNPOD_SECRET_'* | '{{RUNPOD_SECRET_'*)
        warn "$secret_name is a reference to a RunPod secret that was not filled in: it is not used"
        unset "$secret_name"
        ;;
    esac
}

given() { eval "[ -n \"\${$1:-}\" ]"; }

# take_secret SOURCE: the content of $secret_file becomes $secret_name, unless that is set already.
take_secret() {
    secret_value=$(cat -- "$secret_file" 2>/dev/null) # the trailing newline goes here, as it must
    secret_value=${secret_value%"$(printf '\r')"}
    eval "secret_before=\${$secret_name:-}"
    if [ -z "$secret_value" ]; then
        warn "$1 is empty: nothing is taken from it"
    elif [ -z "$secret_before" ]; then
        eval "$secret_name=\$secret_value"
        export "${secret_name?}"
    elif [ "$secret_before" != "$secret_value" ]; then
        warn "$secret_name and $1 differ: $secret_name of the environment is used"
    fi
}
