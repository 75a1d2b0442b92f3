#!/usr/bin/env bash
# Set up and run the demo. See --help.
set -euo pipefail

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

if [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && [ ! -f "$LGSEG_ROOT/.venv/build.done" ]; then
    cat <<'TEXT'
usage: scripts/demo.sh [--source FILE|FOLDER|DEVICE|TOPIC] [--vocabulary "road,car,sky"] [--out out/demo] ...

Sets up everything (about a minute the first time, see scripts/setup.sh --help), then runs a real ROS 2 graph: a
camera process plays the source, the node segments it, and a third process records. Half-way, a service call
changes the vocabulary. Without --source, the camera plays a procedural street and a photograph. Writes
overlay.mp4, before.png, after.png and summary.json to --out, and prints a table.

After the first run, --help lists all options.
TEXT
    exit 0
fi

"$LGSEG_ROOT/scripts/setup.sh" --with demo
source "$LGSEG_ROOT/scripts/activate.sh"
export ROS_LOG_DIR=${ROS_LOG_DIR:-$LGSEG_ROOT/log/ros} # not in ~/.ros, because HOME may be unset
exec lgseg demo "$@"
