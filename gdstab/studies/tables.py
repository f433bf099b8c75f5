"""Text that studies print: columns, and numbers that may be missing."""

from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence]) -> str:
    """Columns of text, the first flush left and the others flush right.

    >>> print(table([("converged", "4"), ("cycling", "12")]))
    converged   4
    cycling    12
    """
    rows = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def number(value: float | None, form: str = ".10g") -> str:
    """A number, or a dash where there is none.

    >>> number(0.5), number(None)
    ('0.5', '-')
    """
    return "-" if value is None else format(value, form)


def counted(counts: dict[str, int], none: str = "nothing") -> str:
    """What there is some of, with how many.

    >>> counted({"minimum": 1200, "strict_saddle": 8, "degenerate": 0})
    '1,200 minimum, 8 strict saddle'
    """
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or none


def timing(summary: dict) -> str:
    """Updates, seconds and their ratio; the time of compilation apart."""
    seconds, steps = summary["run_seconds"], summary["lane_steps"]
    return (
        f"{steps:.4g} lane-steps in {seconds:.2f} s ({steps / max(seconds, 1e-9):.3g}/s), after "
        f"{summary['compile_seconds']:.2f} s of compilation"
    )
