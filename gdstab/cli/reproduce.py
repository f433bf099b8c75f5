"""`gdstab reproduce`."""

from collections.abc import Sequence

from gdstab.cli import driver, process, report
from gdstab.studies.options.reproduce import FIGURES, options_of


def main(arguments: Sequence[str]) -> int:
    """Draw a figure of the papers again, or read it back; say what it shows, with its numbers beside the paper's."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0
    name, *rest = arguments
    if name.startswith("--"):
        raise ValueError(f"the name of a figure comes first, one of {', '.join(FIGURES)}, but got {name}")
    options = process.parse(options_of(name), rest, f"reproduce {name}")
    process.configure(getattr(options, "precision", 64))
    from gdstab.studies import reproduce  # noqa: PLC0415 (JAX is configured first)
    from gdstab.studies.reproduce import show  # noqa: PLC0415

    with report.Progress(reproduce.phases(name, options)) as progress:
        done = reproduce.run(name, options, progress=progress)
    print(show.table(done.record.summary), f"\n{driver.where(done)}", sep="\n")
    return 0


def _help() -> str:
    lines = [f"  {name}  {kind.__doc__.splitlines()[0]}" for name, kind in FIGURES.items()]
    return "\n".join([
        "usage: gdstab reproduce NAME [--out DIRECTORY] [options]",
        "",
        *lines,
        "",
        "The defaults are the paper's numbers, or fewer where those take more than some minutes (D.1, D.3: images and",
        "updates); `gdstab reproduce NAME --help` lists them, and says what the paper has.",
    ])  # fmt: skip
