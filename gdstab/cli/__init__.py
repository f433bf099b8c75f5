"""The command line: one sub-command per study, its parser built only when that study is asked for.

Nothing here imports JAX, NumPy or tyro before it is known that they are needed: `gdstab --help` is instant.
"""

import importlib
import sys
from collections.abc import Sequence

from gdstab import studies
from gdstab.cli import refusals

OTHERS = {
    "reproduce": "the figures of the papers, drawn again, their numbers beside ours",
    "claims": "every numbered statement of the papers, tested",
    "draw": "the figures of finished runs, drawn again from what these wrote",
    "info": "devices, versions, precision, cores",
}
"""Commands that are no study: each is a function of `gdstab.cli.others`, `(arguments) -> exit code`."""


def commands() -> dict[str, str]:
    """All commands, with what each is about: studies by the first line of their folder.

    >>> commands()["heatmap"]
    'where gradient descent ends, and how fast, from every cell of a rectangle (Figure 1a of paper A)'
    """
    found = {}
    for name in studies.names():
        text = importlib.import_module(f"gdstab.studies.{name.replace('-', '_')}").__doc__.splitlines()[0]
        found[name] = text[0].lower() + text[1:].rstrip(".")
    return found | OTHERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 if all went well, 2 if what was asked cannot be done, 130 if it was stopped."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0
    try:
        return _run(arguments[0], arguments[1:])
    except BrokenPipeError:
        raise  # nobody reads on: no fault of what was asked
    except (ValueError, OSError, MemoryError, OverflowError, ModuleNotFoundError, RuntimeError) as error:
        said = refusals.in_one_line(error)
        if said is None:
            raise
        refusals.tidy()
        print(f"gdstab {arguments[0]}: {said}" if arguments[0] in commands() else f"gdstab: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(last_words(arguments), file=sys.stderr)
        return 130


def last_words(arguments: Sequence[str]) -> str:
    """What is said of a command that was stopped: what is kept of it, and how it goes on.

    >>> last_words(["heatmap"])
    'gdstab heatmap: stopped; nothing was begun'
    """
    records = sys.modules.get("gdstab.records")
    run = records.latest() if hasattr(records, "latest") else None  # it may be half imported
    words = "nothing was begun"
    if run is not None and not run.ended:
        kept = run.parts_kept()
        what = f"{kept} finished part{'s are' if kept > 1 else ' is'} kept" if kept else "nothing is kept yet"
        words = f"{what} in {run.path}; with --resume it {'goes on from there' if kept else 'begins again'}"
    return " ".join(["gdstab", *arguments[:1]]) + f": stopped; {words}"


def _run(name: str, rest: Sequence[str]) -> int:
    """What the first word stands for: a command, or an option of gdstab itself."""
    if name == "--version":
        print(importlib.import_module("gdstab").__version__)
        return 0
    if name == "--print-completion":
        print(importlib.import_module("gdstab.cli.completion").script(" ".join(rest), commands()), end="")
        return 0
    if name in OTHERS:
        return getattr(importlib.import_module("gdstab.cli.others"), name)(rest)
    if name not in studies.names():
        raise ValueError(_unknown(name))
    return importlib.import_module("gdstab.cli.driver").main(name, rest)


def _help() -> str:
    width = max(map(len, commands()))
    lines = [f"  {name:{width}}  {text}" for name, text in commands().items()]
    return "\n".join([
        "usage: gdstab COMMAND [options] [loss:NAME --loss.OPTION ...]",
        "",
        "A laboratory for gradient descent as a discrete dynamical system.",
        "",
        *lines,
        "",
        "`gdstab COMMAND --help` lists the options of a command and the losses; `gdstab --version` prints the version;",
        "`eval \"$(gdstab --print-completion bash)\"`, or zsh, has the shell complete them.",
    ])  # fmt: skip


def _unknown(name: str) -> str:
    import difflib  # noqa: PLC0415 (only for this message)

    close = difflib.get_close_matches(name, commands(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"there is no command {name!r}.{hint} The commands are {', '.join(commands())}; see `gdstab --help`."
