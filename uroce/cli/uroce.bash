# SPDX-License-Identifier: Apache-2.0
# bash completion for uroce(1). Its options come from --help, so they fit the command that is installed; what follows the name
# of a command is completed as that command is.
# shellcheck shell=bash

# Lines "OPTION VALUE-NAME" from --help; VALUE-NAME is empty for a switch. Usage: _uroce_options UROCE
_uroce_options() {
    local line
    "$1" --help 2>/dev/null | while IFS= read -r line; do
        while [[ $line =~ ^' '+(--[-a-z]+)(' '([^' ']+))?(.*) ]]; do
            echo "${BASH_REMATCH[1]} ${BASH_REMATCH[3]}"
            line=${BASH_REMATCH[4]}
            [[ $line == ,* ]] || break
            line=${line#,}
        done
    done
}

# Usage: _uroce_values OPTION CURRENT
_uroce_values() {
    local words=
    case $1 in
    --addr) words=$(cd /sys/class/net 2>/dev/null && echo *) ;;
    --log) words='error warn info debug' ;;
    --capture)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$2")
        return
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
}

# What is run under uroce, by its own completion where bash-completion is loaded. Usage: _uroce_other INDEX-OF-THE-COMMAND
_uroce_other() {
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}

_uroce() {
    local uroce=$1 current=${COMP_WORDS[COMP_CWORD]} at word name ended=false
    local -A values=()
    COMPREPLY=()
    while read -r word name; do values[$word]=$name; done < <(_uroce_options "$uroce")
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        if [[ $word == -- ]]; then
            ended=true
            at=$((at + 1))
            break
        fi
        [[ $word == -* ]] || break
        [[ -n ${values[$word]-} ]] || continue
        # bash makes three words of --option=value.
        [[ ${COMP_WORDS[at + 1]} != = ]] || at=$((at + 1))
        at=$((at + 1))
        if ((at >= COMP_CWORD)); then
            [[ $current != = ]] || current=
            _uroce_values "$word" "$current"
            return
        fi
    done
    if ((at < COMP_CWORD)); then
        case $ended:${COMP_WORDS[at]} in
        false:stats | false:resources)
            word=--json
            [[ ${COMP_WORDS[at]} == resources ]] || word+=" $(cd /proc && echo [1-9]*)"
            mapfile -t COMPREPLY < <(compgen -W "$word" -- "$current")
            ;;
        *) _uroce_other "$at" ;;
        esac
    elif [[ $current == -* ]] && ! $ended; then
        mapfile -t COMPREPLY < <(compgen -W "${!values[*]} --" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -c -- "$current"; $ended || compgen -W "stats resources" -- "$current")
        [[ $current != */* ]] || compopt -o filenames 2>/dev/null
    fi
}
complete -F _uroce uroce
