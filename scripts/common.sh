# Sourced by the other scripts: where things are, and how progress and failures look.
# shellcheck shell=bash

# The caller sets LGSEG_ROOT, the folder of the repository.
VENV="$LGSEG_ROOT/.venv"
LOG_DIR="$LGSEG_ROOT/log/setup"

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [CURE...]: one line of what is wrong, then lines of what to do.
die() {
    say ""
    say "error: $1"
    shift
    local line
    for line in "$@"; do say "  $line"; done
    exit 1
}

STEP=0
STEPS=0 # the caller says how many there will be

# step TITLE COMMAND...: run it with its output in a log file; one line with the seconds it took. On failure,
# the last lines of the log and where all of it is; the step's own return code.
step() {
    local title=$1 started=$SECONDS log code=0
    shift
    STEP=$((STEP + 1))
    mkdir -p "$LOG_DIR"
    log="$LOG_DIR/$STEP-${title//[^A-Za-z0-9]/_}.log"
    printf '[%d/%d] %s ... ' "$STEP" "$STEPS" "$title" >&2
    "$@" >"$log" 2>&1 </dev/null &
    wait_showing_seconds $! "$started" || code=$?
    if [ "$code" -eq 0 ]; then
        say "$((SECONDS - started)) s"
        return 0
    fi
    say "failed after $((SECONDS - started)) s"
    say ""
    say "The last lines of $log:"
    tail -n 25 "$log" | sed 's/^/    /' >&2
    return "$code"
}

# Wait for a background job; on a terminal, with the seconds so far counted on the line.
wait_showing_seconds() {
    local pid=$1 started=$2 shown=""
    # Ctrl-C reaches the job as well (same process group); TERM must be handed on.
    trap 'kill "$pid" 2>/dev/null' TERM
    if [ -t 2 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            printf '%*s' "${#shown}" "" | tr ' ' '\b' >&2
            shown="$((SECONDS - started)) s"
            printf '%s' "$shown" >&2
            sleep 0.5
        done
        printf '%*s' "${#shown}" "" | tr ' ' '\b' >&2
    fi
    local code=0
    wait "$pid" || code=$?
    trap - TERM
    return "$code"
}
