# SPDX-License-Identifier: Apache-2.0
# For scripts that print "ok" and "not ok" lines: they source this, and end with $failed. They set $work, a folder of their own.
# shellcheck shell=sh disable=SC2154  # $work is the script's
failed=0

# check WHAT COMMAND...: the command must succeed. Its output is shown when it does not, and what the script keeps in $work/said.
check() {
    what=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok - $what"
    else
        echo "not ok - $what"
        sed 's/^/# /' "$work/log" "$work/said" 2>/dev/null
        failed=1
    fi
}
