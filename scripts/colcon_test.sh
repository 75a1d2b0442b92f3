#!/usr/bin/env bash
# Run colcon build and colcon test as in a user's workspace. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/colcon_test.sh [WORKSPACE] [--ctest-args ARGUMENTS ...]

Clones HEAD of this repository into WORKSPACE/src, builds it with colcon and runs colcon test: the tests in test/unit
and test/node, with the ROS 2 that scripts/setup.sh uses (wheels, or the sourced distribution). Ends with the output
of `colcon test-result --verbose`.

  WORKSPACE      an empty or new folder (default: a temporary one, removed at the end)
  --ctest-args   arguments of ctest, such as --ctest-args -R unit
  --help         this text

Manually, with a distribution: colcon build --packages-up-to lgseg_ros, colcon test --packages-select lgseg_ros.
TEXT
}

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$LGSEG_ROOT/scripts/common.sh"

parse_arguments() {
    WORKSPACE=""
    CTEST_ARGS=()
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage && exit 0 ;;
            --ctest-args) CTEST_ARGS=("$@") && return 0 ;;
            -*) die "unknown argument '$1'" "scripts/colcon_test.sh --help lists them" ;;
            *) WORKSPACE=$(realpath -m "$1") ;;
        esac
        shift
    done
}

make_workspace() {
    if [ -z "$WORKSPACE" ]; then
        WORKSPACE=$(mktemp -d)
        trap 'rm -rf "$WORKSPACE"' EXIT
    fi
    mkdir -p "$WORKSPACE/src"
    [ -z "$(ls -A "$WORKSPACE/src")" ] || die "$WORKSPACE/src is not empty" "Name another folder, or remove it."
    git clone --quiet "$LGSEG_ROOT" "$WORKSPACE/src/lgseg_ros"
    [ ! -e "$LGSEG_ROOT/../shared" ] || ln -s "$(realpath "$LGSEG_ROOT/../shared")" "$WORKSPACE/src/shared"
}

# Remove this checkout's own build from the environment: the workspace must not find its package there.
leave_own_build() {
    local variable entry kept entries
    for variable in AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PATH PYTHONPATH; do
        kept=""
        IFS=: read -ra entries <<<"${!variable:-}"
        for entry in "${entries[@]}"; do
            case $entry in "$LGSEG_ROOT"/install | "$LGSEG_ROOT"/install/*) continue ;; esac
            kept+="${kept:+:}$entry"
        done
        export "$variable=$kept"
    done
}

build_and_test() {
    cd "$WORKSPACE"
    local paths=(src/lgseg_ros) stand_in
    for stand_in in src/lgseg_ros/interfaces/*; do
        have_real "${stand_in##*/}" || paths+=("$stand_in")
    done
    export COLCON_DEFAULTS_FILE=/dev/null
    colcon build --base-paths "${paths[@]}" --cmake-args -DBUILD_TESTING=ON "-DPython3_EXECUTABLE=$VENV/bin/python3"
    # Plugins of a distribution's pytest (launch_testing) do not load into the pytest of .venv.
    export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTEST_ADDOPTS="-p pytest_timeout" ROS_LOG_DIR="$WORKSPACE/log/ros"
    colcon test --base-paths "${paths[@]}" --packages-select lgseg_ros --event-handlers console_cohesion+ "${CTEST_ARGS[@]}"
    colcon test-result --all --verbose
}

main() {
    parse_arguments "$@"
    "$LGSEG_ROOT/scripts/setup.sh" --with train --with test
    # shellcheck source=scripts/setup.sh
    source "$LGSEG_ROOT/scripts/setup.sh" # have_real
    source "$LGSEG_ROOT/scripts/activate.sh"
    leave_own_build
    make_workspace
    build_and_test
}

main "$@"
