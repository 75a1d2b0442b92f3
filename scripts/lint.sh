#!/usr/bin/env bash
# Set up and run all static checks. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/lint.sh [--fix] [CHECK ...]

Installs the requirements of the tests (scripts/setup.sh --with train --with test), then runs every check, also
after one has failed. The exit code is 0 if all have passed.

  ruff         style, imports, naming, docstrings and annotations of the Python code
  mypy         types: --strict for the core rooms, annotated functions everywhere (pyproject.toml)
  yamllint     YAML files
  schema       the GitHub workflows and issue forms against their schemas
  actionlint   the GitHub workflows; skipped if it is not in PATH (requirements/actionlint.txt)
  shellcheck   shell scripts

  CHECK    run only these
  --fix    let ruff fix what it can
  --help   this text
TEXT
}

LGSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$LGSEG_ROOT/scripts/common.sh"
ALL_CHECKS=(ruff mypy yamllint schema actionlint shellcheck)

parse_arguments() {
    FIX=()
    CHECKS=()
    local argument
    for argument in "$@"; do
        case $argument in
            --fix) FIX=(--fix) ;;
            -h | --help) usage && exit 0 ;;
            *)
                [[ " ${ALL_CHECKS[*]} " == *" $argument "* ]] ||
                    die "there is no check '$argument'" "scripts/lint.sh --help lists them"
                CHECKS+=("$argument")
                ;;
        esac
    done
    [ ${#CHECKS[@]} -gt 0 ] || CHECKS=("${ALL_CHECKS[@]}")
}

check_ruff() { ruff check --quiet --output-format concise "${FIX[@]}" .; }
check_mypy() { mypy --no-error-summary; }
check_yamllint() { yamllint --strict .; }
check_schema() {
    local schema
    for schema in vendor.github-workflows custom.github-workflows-require-timeout; do
        check-jsonschema --quiet --builtin-schema "$schema" .github/workflows/*.yml || return 1
    done
    check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*_*.yml
}
check_actionlint() {
    if command -v actionlint >/dev/null; then actionlint; else log "actionlint is not in PATH: skipped"; fi
}
check_shellcheck() { shellcheck --external-sources scripts/*.sh .ci/run bin/completion.bash; }

main() {
    parse_arguments "$@"
    "$LGSEG_ROOT/scripts/setup.sh" --with train --with test
    source "$LGSEG_ROOT/scripts/activate.sh"
    cd "$LGSEG_ROOT"
    local check failed=() started
    for check in "${CHECKS[@]}"; do
        started=$SECONDS
        if "check_$check"; then
            log "$check: passed, $((SECONDS - started)) s"
        else
            failed+=("$check")
            log "$check: FAILED, $((SECONDS - started)) s"
        fi
    done
    [ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}" "One check alone: scripts/lint.sh ${failed[0]}"
}

main "$@"
