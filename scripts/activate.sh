# source scripts/activate.sh (bash or zsh), after scripts/setup.sh: adds ROS 2, the package and its services to the
# shell. It can be sourced more than once.
# shellcheck shell=bash disable=SC1090,SC2154

if [ -n "${BASH_VERSION:-}" ]; then
    _lgseg_file=${BASH_SOURCE[0]}
else
    eval '_lgseg_file=${(%):-%x}' # the same in zsh; other shells cannot parse it
fi
LGSEG_ROOT=$(cd "$(dirname "$_lgseg_file")/.." && pwd -P)
unset _lgseg_file

# _lgseg_prepend VARIABLE FOLDER: prepend the folder unless the variable has it.
_lgseg_prepend() {
    eval "_lgseg_value=\${$1:-}"
    case ":$_lgseg_value:" in
        *":$2:"*) ;;
        *) export "$1=$2${_lgseg_value:+:$_lgseg_value}" ;;
    esac
    unset _lgseg_value
}

# ROS setup files read variables that may be unset.
case $- in *u*) _lgseg_u=1 && set +u ;; *) _lgseg_u= ;; esac

if [ ! -f "$LGSEG_ROOT/.venv/ros" ]; then
    echo "$LGSEG_ROOT is not set up yet: run $LGSEG_ROOT/scripts/setup.sh first" >&2
    [ -z "$_lgseg_u" ] || set -u
    unset _lgseg_u
    return 1
fi

# .venv/ros holds the source of ROS: "wheels", or the folder of a distribution.
_lgseg_ros=$(cat "$LGSEG_ROOT/.venv/ros")
if [ "$_lgseg_ros" = wheels ]; then
    export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
    _lgseg_prepend AMENT_PREFIX_PATH "$LGSEG_ROOT/.venv"
    _lgseg_prepend CMAKE_PREFIX_PATH "$LGSEG_ROOT/.venv"
    # Without this variable, the wheels re-execute Python to set LD_LIBRARY_PATH. It is set here.
    for _lgseg_libs in "$LGSEG_ROOT"/.venv/lib/python3.11/site-packages/ros_*.libs "$LGSEG_ROOT/.venv/lib"; do
        _lgseg_prepend LD_LIBRARY_PATH "$_lgseg_libs"
    done
    unset _lgseg_libs
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
else
    case ":${AMENT_PREFIX_PATH:-}:" in
        *":$_lgseg_ros:"*) ;;
        *) . "$_lgseg_ros/setup.${ZSH_VERSION:+z}${BASH_VERSION:+ba}sh" || echo "source your ROS distribution first" >&2 ;;
    esac
fi

export VIRTUAL_ENV="$LGSEG_ROOT/.venv"
PATH=":$PATH:" # first, even if another environment has been activated since
PATH=${PATH//":$LGSEG_ROOT/.venv/bin:"/:}
PATH=${PATH#:}
export PATH="$LGSEG_ROOT/.venv/bin:${PATH%:}"
if [ -f "$LGSEG_ROOT/install/local_setup.sh" ]; then
    . "$LGSEG_ROOT/install/local_setup.${ZSH_VERSION:+z}${BASH_VERSION:+ba}sh"
    _lgseg_prepend PATH "$LGSEG_ROOT/install/lgseg_ros/lib/lgseg_ros"
fi

[ -z "$_lgseg_u" ] || set -u
unset _lgseg_ros _lgseg_u
unset -f _lgseg_prepend
