"""What a person sees: a bar while it runs, a table at the end."""

import sys
import threading
import time
from collections.abc import Iterable, Sequence

from tqdm import tqdm


class Progress:
    """A bar over the lanes, with lane-steps per second; one last line where there is no terminal."""

    def __init__(self, lanes: int, file=None):
        self.file = sys.stderr if file is None else file
        self.lanes, self.lane_steps, self.begin = 0, 0, time.perf_counter()
        self.lock = threading.Lock()
        self.bar = tqdm(
            total=lanes, unit=" lanes", unit_scale=True, disable=None, leave=False, file=self.file, dynamic_ncols=True
        )

    def __call__(self, lanes: int, lane_steps: int) -> None:
        """Add what has happened since the last call."""
        with self.lock:
            self.lanes += lanes
            self.lane_steps += lane_steps
            self.bar.set_postfix_str(f"{self.rate()} lane-steps/s", refresh=False)
            self.bar.update(lanes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()
        if self.lanes:
            seconds = time.perf_counter() - self.begin
            print(f"{self.lanes:,} lanes, {self.lane_steps:.4g} lane-steps; {seconds:.1f} s in all", file=self.file)

    def rate(self) -> str:
        """Lane-steps per second so far."""
        return f"{self.lane_steps / (time.perf_counter() - self.begin):.3g}"


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
