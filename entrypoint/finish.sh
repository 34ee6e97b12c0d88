# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables: entrypoint.sh reads them all
# How ltxtrain is run, and what happens when it ends: LTX_ON_EXIT.
#   exit      the container ends with its exit code. This shell becomes ltxtrain, nothing stands between.
#   sleep     the container stays, for those whose cloud would start it again.
#   stop-pod  the cloud is asked to stop this machine, so that nobody pays for a finished run.

check_on_exit() {
    on_exit=${LTX_ON_EXIT:-exit}
    case $on_exit in
    exit | sleep) ;;
    stop-pod)
        if [ -z "$cloud" ]; then
            refuse "LTX_ON_EXIT=stop-pod, but this is neither RunPod nor Vast" "say LTX_ON_EXIT=exit or sleep"
        fi
        if [ -z "$again" ]; then warn_of_no_stop; fi
        ;;
    *) refuse "LTX_ON_EXIT is '$on_exit', which is not known" "say exit, sleep or stop-pod" ;;
    esac
}

# run COMMAND ARGUMENT...
run() {
    forget_heartbeat
    if [ "$on_exit" = exit ] && [ -z "${LTX_LOG:-}" ]; then exec "$@"; fi
    open_log
    caught='' child='' sleeper=''
    trap 'pass_on TERM' TERM
    trap 'pass_on INT' INT
    supervise "$@"
    forget_heartbeat
    exec 9>&- # the next training may begin
    # A run that was stopped is to end, not to hold the machine; and what runs in a terminal is stopped by Ctrl+C.
    case $caught$code in TERM* | INT* | 143 | 130) leave ;; esac
    case $on_exit in
    exit) leave ;;
    stop-pod)
        if reason=$(stop_machine 2>&1); then
            note "ltxtrain has ended with exit code $code; this machine is being stopped"
        else
            # Ending instead would let the cloud start it all again, and the bill would go on.
            warn "ltxtrain has ended with exit code $code, but this machine could not be stopped: ${reason:-no answer}"
        fi
        ;;
    *) note "ltxtrain has ended with exit code $code; the container stays (LTX_ON_EXIT=sleep)" ;;
    esac
    rest
}

# Run a command in a session of its own, so that a terminal's Ctrl+C reaches this shell alone and is passed on once: a
# second signal would make ltxtrain leave without saving. Sets $code.
supervise() {
    exec 3<&0
    # A shell lets what it starts with & ignore SIGINT and gives it no stdin: both are put right here.
    env --default-signal=INT,QUIT setsid "$@" <&3 3<&- 5>&- 6>&- &
    child=$!
    exec 3<&-
    # A signal ends `wait` early, with a code of its own. The child's code is what counts.
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    # If a signal came at that very moment, the child's code is still to be had; else it is known no more (127).
    if [ -n "$caught" ]; then
        wait "$child" 2>/dev/null
        late=$?
        if [ "$late" != 127 ]; then code=$late; fi
    fi
}

# pass_on SIGNAL. Nothing is started in here: that could take the child's exit code away from `wait`.
pass_on() {
    caught=$1
    if [ -n "$sleeper" ]; then leave; fi
    if [ -n "$child" ]; then kill -s "$1" "$child" 2>/dev/null; fi
}

# From now on a signal ends this shell at once.
listen() {
    sleeper=none
    trap 'pass_on TERM' TERM
    trap 'pass_on INT' INT
    if [ -n "${caught:-}" ]; then leave; fi
}

# Wait for the signal that ends the container, and end with $code.
rest() {
    listen
    sleep infinity >/dev/null 2>&1 9>&- &
    sleeper=$!
    wait "$sleeper"
    leave
}

# End with $code.
leave() {
    if [ "${sleeper:-none}" != none ]; then kill "$sleeper" 2>/dev/null; fi
    close_log
    exit "$code"
}

# Copy both streams into LTX_LOG, each by a tee of its own, so that they stay apart for those who read them.
open_log() {
    logging=''
    if [ -z "${LTX_LOG:-}" ]; then return; fi
    if ! (mkdir -p -- "$(dirname -- "$LTX_LOG")" && : >>"$LTX_LOG") 2>/dev/null; then
        warn "LTX_LOG=$LTX_LOG cannot be written: there will be no log file"
        return
    fi
    pipes=$(mktemp -d) || return
    mkfifo "$pipes/out" "$pipes/err"
    exec 5>&1 6>&2
    # In sessions of their own: they end when nobody writes any more, not by a signal that is meant for the run.
    setsid tee -a -- "$LTX_LOG" <"$pipes/out" >&5 9>&- &
    out_tee=$!
    setsid tee -a -- "$LTX_LOG" <"$pipes/err" >&6 9>&- &
    err_tee=$!
    exec >"$pipes/out" 2>"$pipes/err"
    rm -r -- "$pipes"
    logging=1
}

# Let the last lines through before this ends. Not for ever: a process that was left behind may still hold the stream.
close_log() {
    if [ -z "${logging:-}" ]; then return; fi
    logging=''
    exec >&5 2>&6 5>&- 6>&-
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if ! kill -0 "$out_tee" 2>/dev/null && ! kill -0 "$err_tee" 2>/dev/null; then return; fi
        sleep 0.1
    done
}
