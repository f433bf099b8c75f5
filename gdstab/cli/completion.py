"""What the shell offers behind TAB: `eval "$(gdstab --print-completion bash)"`, or zsh.

Commands, options, losses and choices stand in the script, so that nothing is started while somebody types.
"""

import typing
from collections.abc import Iterable, Mapping
from typing import Literal

from gdstab import studies
from gdstab.cli import driver, words
from gdstab.studies.options.reproduce import FIGURES

SHELLS = ("bash", "zsh")
_OTHERS = {"claims": ("--paper", "--only", "--out"), "draw": (), "info": ("--precision",)}

_BASH = """_gdstab() {{
  local line="${{COMP_LINE:0:COMP_POINT}}" offered=""
  local cur="${{line##* }}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}"
  COMPREPLY=()
  if [[ "${{line#* }}" != *" "* ]]; then
    offered="{commands}"
  else
    case "$prev" in
{choices}
      --out|--loss.path) return ;;
      *) case "$command" in
{options}
      esac ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$offered" -- "$cur"))
  local before="${{cur%"${{cur##*:}}"}}"  # a colon parts words: what is before it stands already
  COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
}}
complete -o default -F _gdstab gdstab
"""

_ZSH = """_gdstab() {{
  if (( CURRENT == 2 )); then
    compadd -- {commands}
    return
  fi
  case "${{words[CURRENT-1]}}" in
{choices}
    --out|--loss.path) _files ;;
    *) case "${{words[2]}}" in
{options}
    esac ;;
  esac
}}
compdef _gdstab gdstab
"""


def script(shell: str, commands: Iterable[str]) -> str:
    """The script that a shell evaluates.

    Raises
    ------
    ValueError
        If it is for no shell that is known.
    """
    if shell not in SHELLS:
        raise ValueError(f"--print-completion takes one of {', '.join(SHELLS)}, but got {shell!r}")
    offer = 'offered="{}"' if shell == "bash" else "compadd -- {}"

    def cases(of: Mapping[str, Iterable[str]]) -> str:
        return "\n".join(f"      {name}) {offer.format(' '.join(each))} ;;" for name, each in of.items())

    template = _BASH if shell == "bash" else _ZSH
    return template.format(
        commands=" ".join([*commands, "--help", "--version"]), options=cases(_options()), choices=cases(_choices())
    )


def _options() -> dict[str, list[str]]:
    """What may be written behind each command."""
    found = {name: [*_of(driver.command_of(name))] for name in studies.names()}
    drawn = dict.fromkeys(option for kind in FIGURES.values() for option in _of(kind))
    found["reproduce"] = [*FIGURES, *drawn]
    return {name: [*each, "--help"] for name, each in (found | _OTHERS).items()}


def _of(kind: type) -> Iterable[str]:
    losses = words.losses_of(kind)
    below = dict.fromkeys(name for loss in losses.values() for name in words.options_of(loss, "loss."))
    return [*words.options_of(kind), *(losses if len(losses) > 1 else ()), *below]


def _choices() -> dict[str, list[str]]:
    """What may be written behind an option that takes one of a few words, in any study."""
    found: dict[str, dict[str, None]] = {}
    for study in studies.all_options():
        known = words.options_of(study)
        for loss in words.losses_of(study).values():
            known = known | words.options_of(loss, "loss.")
        for option in known.values():
            if option.types and typing.get_origin(option.types[0]) is Literal:
                found.setdefault(option.name, {}).update(dict.fromkeys(map(str, typing.get_args(option.types[0]))))
    return {name: list(choices) for name, choices in found.items()}
