# SPDX-License-Identifier: Apache-2.0
# bash completion for securdma(1). It offers what --help prints, so it fits the installed command.
# shellcheck shell=bash

# _securdma_options COMMAND...: lines "OPTION VALUE-NAME" from its --help; VALUE-NAME is empty for a switch.
_securdma_options() {
    local line
    "$@" --help 2>/dev/null | while IFS= read -r line; do
        [[ $line =~ ^' '+(-[-a-z0-9]+)(' '([^' ']+))? ]] && echo "${BASH_REMATCH[1]} ${BASH_REMATCH[3]}"
    done
    echo "--help "
}

# The values of an option, as words in COMPREPLY. Usage: _securdma_values OPTION VALUE-NAME CURRENT
_securdma_values() {
    local words=
    case $1 in
    --log-level) words='error warn info debug' ;;
    --log-format) words='text json' ;;
    --region-access) words='rw r w none' ;;
    --files-rights) words='rwd rw r wd w none' ;;
    --workers) words='auto per-client' ;;
    --only) words='setup latency bandwidth' ;;
    --device) words=$(cd /sys/class/infiniband 2>/dev/null && echo *) ;;
    --user) words=$(compgen -u) ;;
    --group) words=$(compgen -g) ;;
    *)
        case $2 in
        FILE | PATH | PREFIX | DIR)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$3")
            return
            ;;
        *'|'*) words=${2//|/ } ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$3")
}

_securdma() {
    local securdma=$1 current=${COMP_WORDS[COMP_CWORD]} at=$COMP_CWORD command=${COMP_WORDS[1]} commands previous word name operands=0
    local -A values=()
    COMPREPLY=()
    commands=$("$securdma" --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
    if ((at == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$commands help --help --version" -- "$current")
        return
    fi
    if [[ $command == help ]]; then
        ((at > 2)) || mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
        return
    fi
    [[ $'\n'$commands$'\n' == *$'\n'$command$'\n'* ]] || return
    while read -r word name; do values[$word]=$name; done < <(_securdma_options "$securdma" "$command")

    # bash makes three words of --option=value.
    [[ $current != = ]] || current=
    [[ -z $current && ${COMP_WORDS[at]} == = ]] || at=$((at - 1))
    [[ ${COMP_WORDS[at]} != = ]] || at=$((at - 1))
    previous=${COMP_WORDS[at]}
    if [[ $previous == -* && -n ${values[$previous]-} ]]; then
        _securdma_values "$previous" "${values[$previous]}" "$current"
        return
    fi
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${!values[*]}" -- "$current")
        return
    fi
    for ((at = 2; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        [[ $word == -* || $word == = || ${COMP_WORDS[at - 1]} == = || -n ${values[${COMP_WORDS[at - 1]}]-} ]] || operands=$((operands + 1))
    done
    case $command in
    cert)
        if ((operands == 0)); then
            word=$("$securdma" cert --help 2>/dev/null | sed -n 's/^  \([a-z-]*\)  .*/\1/p')
            mapfile -t COMPREPLY < <(compgen -W "$word" -- "$current")
        else
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        ;;
    cp)
        compopt -o filenames -o nospace 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current"; compgen -A hostname -S : -- "$current")
        ;;
    connect | bench | tunnel) mapfile -t COMPREPLY < <(compgen -A hostname -- "$current") ;;
    kick) ;;
    wrap) mapfile -t COMPREPLY < <(compgen -c -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "${!values[*]}" -- "$current") ;;
    esac
}
complete -F _securdma securdma
