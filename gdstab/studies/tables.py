"""Text that studies print: columns, and numbers that may be missing."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def columns(rows: Iterable[Sequence]) -> str:
    """Columns of text, the first flush left and the others flush right.

    >>> print(columns([("converged", "4"), ("cycling", "12")]))
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


def picked(found: Any, *names: str) -> dict[str, Any]:
    """Some of what was found, as entries of a summary.

    >>> picked(3 + 4j, "real", "imag")
    {'real': 3.0, 'imag': 4.0}
    """
    return {name: getattr(found, name) for name in names}


def plain(value: Any, absent: Callable[[float], Any] = lambda _: None) -> Any:
    """Numbers as JSON has them: NumPy's and JAX's as Python's, arrays and tuples as lists, keys as text.

    What is not finite becomes what `absent` makes of it, by default None.

    >>> plain({2: float("inf"), "box": (1, 2)}), plain(float("nan"), str)
    ({'2': None, 'box': [1, 2]}, 'nan')
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(entry, absent) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, absent) for entry in value]
    return absent(value) if isinstance(value, float) and not math.isfinite(value) else value
