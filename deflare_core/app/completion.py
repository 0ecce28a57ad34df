"""The command that lets a shell complete commands and options."""

from __future__ import annotations

from deflare_core.app.arguments import find_parameters, list_flags
from deflare_core.app.commands import COMMANDS

SCRIPT = """\
# Completes the commands and options of deflare in bash. To use it: source <(deflare completion)
_deflare() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if [[ $COMP_CWORD -eq 1 ]]; then
        words="{commands}"
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _deflare deflare"""
"""What is no option is completed as a file."""


def completion() -> None:
    """Print a script for bash that completes the commands, their options and their settings."""
    flags = {row.name: " ".join(list_flags(find_parameters(row.load()))) for row in COMMANDS}
    cases = (f'            {name}) words="{words}" ;;' for name, words in flags.items())
    print(SCRIPT.format(commands=" ".join(flags), cases="\n".join(cases)))
