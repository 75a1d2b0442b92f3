# Sourced by the other scripts: paths, progress and errors.
# shellcheck shell=bash disable=SC2034

# The caller sets LGSEG_ROOT, the folder of the repository.
VENV="$LGSEG_ROOT/.venv"
LOG_DIR="$LGSEG_ROOT/log/setup"

log() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT...]: print the error in one line, then the hints, and exit.
die() {
    log ""
    log "error: $1"
    shift
    local line
    for line in "$@"; do log "  $line"; done
    exit 1
}

STEP=0
STEPS=0 # set by the caller

# step TITLE HINT COMMAND...: run COMMAND with its output in a log file, and print one line with its duration. On
# failure, print the last lines of the log, and HINT. Do not call it before || or &&: errexit would be off in COMMAND.
step() {
    local title=$1 hint=$2 started=$SECONDS code=0 job
    shift 2
    STEP=$((STEP + 1))
    local log="$LOG_DIR/$STEP-${title//[^A-Za-z0-9]/-}.log"
    mkdir -p "$LOG_DIR"
    printf '[%d/%d] %s ... ' "$STEP" "$STEPS" "$title" >&2
    # A process group of its own (set -m), so that an interrupt ends all of it. Otherwise bash makes the job ignore
    # Ctrl-C, and pip continues after this script has ended.
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    job=$!
    set +m
    trap 'kill -TERM -- "-$job" 2>/dev/null; log "interrupted; run it again to continue"; exit 130' INT TERM
    count_seconds "$job" "$started"
    wait "$job" || code=$?
    trap - INT TERM
    if [ "$code" -eq 0 ]; then
        log "$((SECONDS - started)) s"
        return 0
    fi
    log "failed after $((SECONDS - started)) s; the last lines of $log:"
    tail -n 25 "$log" | sed 's/^/    /' >&2
    die "step '$title' failed" "$hint"
}

# Show the elapsed seconds of a job on a terminal.
count_seconds() {
    local job=$1 started=$2 shown=""
    [ -t 2 ] || return 0
    while kill -0 "$job" 2>/dev/null; do
        printf '%s' "${shown//?/$'\b'}" >&2
        shown="$((SECONDS - started)) s"
        printf '%s' "$shown" >&2
        sleep 0.5
    done
    printf '%s' "${shown//?/$'\b'}" >&2
}
