#!/usr/bin/env bash
# Set up and run all tests. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [--quick] [PYTEST ARGUMENTS]

Installs the requirements of the tests, PyTorch included (scripts/setup.sh --with train --with test --with demo),
then runs pytest on test/ in a ROS domain of its own, limited to this host. Removes stale processes and shared
memory of the run at the end.

  --quick   skip the tests marked slow
  --help    this text

Examples:  scripts/test.sh --quick
           scripts/test.sh test/unit/test_packaging.py -k pinned
           scripts/test.sh -x --pdb        (other arguments go to pytest)

Environment: ROS_DOMAIN_ID   ROS domain of the tests (default: a random one, 1 to 101)
TEXT
}

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

parse_arguments() {
    PYTEST=()
    local named_a_test=no argument
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            --quick) PYTEST+=(-m "not slow") ;;
            *)
                PYTEST+=("$argument")
                [ ! -e "${argument%%::*}" ] || named_a_test=yes
                ;;
        esac
    done
    [ "$named_a_test" = yes ] || PYTEST+=("$LGSEG_ROOT/test")
}

own_ros_domain() {
    export ROS_DOMAIN_ID=${ROS_DOMAIN_ID:-$((RANDOM % 101 + 1))}
    # Newer distributions warn about the old variable. Humble has only that one.
    if [ "${ROS_DISTRO:-}" = humble ]; then
        export ROS_LOCALHOST_ONLY=1
    else
        export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
    fi
}

# Processes that the tests started have LGSEG_TEST_RUN in their environment, in any process group.
processes_of_this_run() { grep -lzsx "LGSEG_TEST_RUN=$RUN" /proc/[0-9]*/environ | cut -d/ -f3; }

end_stale_processes() {
    local signal pids
    for signal in TERM KILL; do
        pids=$(processes_of_this_run) || true
        [ -n "$pids" ] || return 0
        echo "test.sh: ending stale processes ($signal): $(tr '\n' ' ' <<<"$pids")" >&2
        # shellcheck disable=SC2086
        kill "-$signal" $pids 2>/dev/null || true
        sleep 2
    done
}

# A killed process leaves its Fast DDS segments behind. A segment is removed only if it was created during this run,
# belongs to this user, is not mapped by a process and is not locked, because other nodes may be running.
remove_stale_shared_memory() {
    local in_use lock name
    in_use=$(cat /proc/[0-9]*/maps 2>/dev/null | grep -o '/dev/shm/[^ ]*' | sort -u) || true
    for lock in /dev/shm/{fastrtps,fastdds}_*_[es]l; do
        name=${lock##*/} name=${name%_[es]l}
        if [ -O "$lock" ] && [ "$lock" -nt "$STARTED" ] && ! grep -qxF "/dev/shm/$name" <<<"$in_use" \
            && flock -n -x "$lock" true; then
            rm -f "$lock" "/dev/shm/$name" "/dev/shm/sem.${name}_mutex"
        fi
    done
}

clean_up() {
    end_stale_processes
    remove_stale_shared_memory
    rm -f "$STARTED"
}

main() {
    parse_arguments "$@"
    "$LGSEG_ROOT/scripts/setup.sh" --with train --with test --with demo
    source "$LGSEG_ROOT/scripts/activate.sh"
    export ROS_LOG_DIR=${ROS_LOG_DIR:-$LGSEG_ROOT/log/ros} # not in ~/.ros, because HOME may be unset
    own_ros_domain
    RUN=$$-$RANDOM
    STARTED=$(mktemp)
    trap clean_up EXIT
    # Only the plugins that these tests use: those of a distribution (launch_testing) need an older pytest.
    export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
    # In the foreground: background jobs of bash ignore Ctrl-C, and the nodes under test would inherit that.
    LGSEG_TEST_RUN=$RUN python -m pytest -p pytest_timeout -c "$LGSEG_ROOT/pytest.ini" --rootdir "$LGSEG_ROOT" "${PYTEST[@]}"
}

main "$@"
