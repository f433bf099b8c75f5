"""`gdstab draw`."""

from collections.abc import Sequence
from pathlib import Path

from gdstab.cli import process


def main(arguments: Sequence[str]) -> int:
    """Draw the figures of finished runs again, from what these wrote: nothing is run."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        print("usage: gdstab draw DIRECTORY ...\n\nDraws the figures of finished runs again, from what these wrote.")
        return 0
    wrong = [word for word in arguments if word.startswith("-")]
    if wrong:
        raise ValueError(f"it takes directories of finished runs and no options, but got {wrong[0]}")
    from gdstab.records import load  # noqa: PLC0415 (imports JAX)

    for path in map(Path, arguments):
        record = load(path)
        if not record.complete:
            raise ValueError(f"{path} holds an interrupted run: finish it with --resume, then draw it")
        process.configure(record.configuration.get("precision", 64))
        from gdstab.studies import lifecycle  # noqa: PLC0415 (JAX is configured first)

        lifecycle.draw(record)
        print(f"Figures: {path}")
    return 0
