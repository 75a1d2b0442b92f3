#!/usr/bin/env bash
# The main job on this machine, set-up included. See --help.
set -euo pipefail

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

if [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && [ ! -f "$LGSEG_ROOT/.venv/build.done" ]; then
    cat <<'TEXT'
usage: scripts/demo.sh [--source FILE|FOLDER|DEVICE|TOPIC] [--vocabulary "road,car,sky"] [--out out/demo] ...

Sets everything up (about a minute the first time, see scripts/setup.sh --help), then runs a real ROS 2 graph: a
camera process plays the source, the node segments it, a third process records; half-way the vocabulary is
changed by a service call. Without --source a procedural street and a photograph are played. Writes overlay.mp4,
before.png, after.png and summary.json to --out, and prints a table.

After the first run, --help lists all options.
TEXT
    exit 0
fi

"$LGSEG_ROOT/scripts/setup.sh" --with demo
source "$LGSEG_ROOT/scripts/activate.sh"
export ROS_LOG_DIR=${ROS_LOG_DIR:-$LGSEG_ROOT/log/ros} # not in ~/.ros, and there need be no HOME
exec lgseg demo "$@"
