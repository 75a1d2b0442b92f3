# Sourced by the other scripts: where things are, and how progress and failures look.
# shellcheck shell=bash disable=SC2034

# The caller sets LGSEG_ROOT, the folder of the repository.
VENV="$LGSEG_ROOT/.venv"
LOG_DIR="$LGSEG_ROOT/log/setup"

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT...]: one line of what is wrong, then lines of what to do.
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

# step TITLE HINT COMMAND...: run it with its output in a log file; one line with the seconds it took. On failure,
# the last lines of the log, and HINT. Call it plainly, not before || or &&: errexit would be off inside COMMAND.
step() {
    local title=$1 hint=$2 started=$SECONDS code=0 job
    shift 2
    STEP=$((STEP + 1))
    local log="$LOG_DIR/$STEP-${title//[^A-Za-z0-9]/-}.log"
    mkdir -p "$LOG_DIR"
    printf '[%d/%d] %s ... ' "$STEP" "$STEPS" "$title" >&2
    # A process group of its own (set -m), so that an interrupt can end all of it; without, bash would make the
    # job ignore Ctrl-C and pip would go on after us.
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    job=$!
    set +m
    trap 'kill -TERM -- "-$job" 2>/dev/null; say "interrupted; run it again to go on"; exit 130' INT TERM
    count_seconds "$job" "$started"
    wait "$job" || code=$?
    trap - INT TERM
    if [ "$code" -eq 0 ]; then
        say "$((SECONDS - started)) s"
        return 0
    fi
    say "failed after $((SECONDS - started)) s; the last lines of $log:"
    tail -n 25 "$log" | sed 's/^/    /' >&2
    die "step '$title' failed" "$hint"
}

# While a job runs: the seconds so far, on a terminal.
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
