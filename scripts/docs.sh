#!/usr/bin/env bash
# Build the documentation site. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/docs.sh [--serve] [--out FOLDER]

Builds the documentation site from docs/ and the docstrings of lgseg_ros. A broken link or anchor is an error.
The site loads nothing from the network.

  --out FOLDER   output folder (default: site/; open site/index.html)
  --serve        build, serve on http://127.0.0.1:8000, and rebuild when a file changes
  --help         this text
TEXT
}

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$LGSEG_ROOT/scripts/common.sh"

OUT="$LGSEG_ROOT/site"
SERVE=no
while [ $# -gt 0 ]; do
    case $1 in
        --serve) SERVE=yes ;;
        --out)
            [ -n "${2:-}" ] || die "--out takes a folder" "scripts/docs.sh --help lists the options"
            OUT=$(realpath -m "$2")
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        *) die "unknown argument '$1'" "scripts/docs.sh --help lists the options" ;;
    esac
    shift
done

"$LGSEG_ROOT/scripts/setup.sh" --with test
cd "$LGSEG_ROOT"
export NO_MKDOCS_2_WARNING=1 # an advertisement, not a warning about this site
if [ "$SERVE" = yes ]; then exec "$VENV/bin/python" -m mkdocs serve; fi
# Not --quiet: it hides warnings from --strict, too.
"$VENV/bin/python" -m mkdocs build --strict --clean --site-dir "$OUT"
log "built: $OUT/index.html"
