"""The command line: one sub-command per study, its parser built only when that study is asked for.

Nothing here imports JAX, NumPy or tyro before it is known that they are needed: `gdstab --help` is instant.
"""

import importlib
import sys
from collections.abc import Sequence

from gdstab.cli import refusals

COMMANDS = {
    "heatmap": "where gradient descent ends, and how fast, from every cell of a rectangle (Figure 1a of paper A)",
    "orbit": "where single orbits go, step by step (Figure 2 of paper A)",
    "critical": "the flattest minimum, the critical step size, how much of the minima is stable (Figure 1b of paper A)",
    "critical-map": "up to which step size descent converges, for every initial point of a rectangle",
    "spectrum": "the spectrum of the Hessian at a point, along an orbit, or at random minima",
    "overfitting": "where linear networks end: at global minima, or at which saddles (the conjecture of paper B)",
    "escape": "where shallow ReLU networks end: at which level of the loss, and how saddles are left (paper C)",
    "flow": "how far descent strays from gradient flow, the curvature along it, and the bound of paper D",
    "basin": "what share of random initial points ends where, against the step size, with intervals",
    "boundary": "where basins meet, drawn at the cost of their edges, and how rough these are: entropy, dimension",
    "cycle": "on which cycles orbits end, and their branches over the step size with all bifurcation points",
    "lyapunov": "how fast neighbouring orbits part, and what stays bounded: cycles, quasi-periodic or chaotic orbits",
    "bifurcation": "orbits against the step size: cycles, doublings, chaos, and where bounded orbits end",
    "multipliers": "optimisers as maps: multipliers, thresholds found and predicted, the edge of stability",
    "reproduce": "the figures of the papers, drawn again, their numbers beside ours",
    "claims": "every numbered statement of the papers, tested",
    "info": "devices, versions, precision, cores",
}
"""Each is a module `gdstab.cli.<name>`, dashes as underscores, with `main(arguments) -> exit code`."""


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
        print(f"gdstab {arguments[0]}: {said}" if arguments[0] in COMMANDS else f"gdstab: {said}", file=sys.stderr)
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
        print(importlib.import_module("gdstab.cli.completion").script(" ".join(rest), COMMANDS), end="")
        return 0
    if name not in COMMANDS:
        raise ValueError(_unknown(name))
    return importlib.import_module(f"gdstab.cli.{name.replace('-', '_')}").main(rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
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

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"there is no command {name!r}.{hint} The commands are {', '.join(COMMANDS)}; see `gdstab --help`."
