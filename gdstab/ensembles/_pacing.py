"""How much is done before it is written down: pieces of work that take about so long, whatever the loss costs."""

import time
from collections.abc import Iterator

import numpy as np

SECONDS = 8.0
"""What a piece should take. Two may be under way, and the next may cost twice as much: about half a minute is lost."""
FIRST, GROWTH = 256, 8
"""Length of the first piece, of which nothing is known; and how much longer than the last one a piece may be."""


class Pace:
    """The lengths of pieces of work, from how long those before took.

    What is computed must not depend on how it is cut.

    Examples
    --------
    >>> pace = Pace(10**6)
    >>> pace.took(256, 0.01), pace.took(2048, 4.0), pace.length
    (None, None, 4096)
    """

    def __init__(self, most: int, *, first: int = FIRST, seconds: float = SECONDS):
        self.most, self.first, self.seconds = most, min(first, most), seconds
        self.length = self.first
        self.since = time.perf_counter()

    def took(self, length: int, seconds: float) -> None:
        """Learn from a piece."""
        wanted = min(length * self.seconds / max(seconds, 1e-6), GROWTH * length)
        doubled = self.first * 2 ** int(np.log2(max(wanted / self.first, 1.0)))
        self.length = int(min(doubled, self.most))

    def done(self, length: int, apart: float = 0.0) -> None:
        """Learn from a piece that was done since the last one was, without so many seconds of compilation."""
        now = time.perf_counter()
        self.took(length, now - self.since - apart)
        self.since = now

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """`(start, stop)` of pieces, each cut when it is asked for."""
        while start < stop:
            end = min(start + self.length, stop)
            yield start, end
            start = end
