"""How large a block is, how often one asks whether it is done, and when stragglers are packed anew, per platform.

And how much is done before it is written down: pieces of work that take about so long, whatever the loss costs.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import NamedTuple

import jax
import numpy as np

from gdstab._guard import cores, refuse_forked

FIRST_STOP, GROWTH = 32, 4
"""Stragglers are packed after 32, 128, 512, ... updates: the last pass holds only the few that creep."""
SECONDS = 8.0
"""What a piece should take. Two may be under way, and the next may cost twice as much: about half a minute is lost."""
FIRST, LONGER = 256, 8
"""Length of the first piece, of which nothing is known; and how much longer than the last one a piece may be."""
_AT_ONCE = {True: 2**22, False: 2**31}
"""Bytes of intermediate arrays of one block, on a CPU and elsewhere."""


class Tuning(NamedTuple):
    """Choices that change the speed and never an answer."""

    block: int  # lanes that leave a loop together
    chunk: int  # lanes of one call of the first pass
    later: int  # the same for the passes over stragglers
    updates_per_test: int
    workers: int  # host threads that keep the device busy


def choose(
    platform: str, lanes: int, bytes_per_lane: int, num_devices: int, block: int | None, together: int | None = None,
    working: int = 1,
) -> Tuning:  # fmt: skip
    """The tuning for `lanes` orbits whose state takes `bytes_per_lane`; a CPU's blocks hold `together` at the least, if
    that is given.

    The block must not depend on the lanes or the devices: a program for another block may round in another way. So few
    lanes pad a whole block, and that must be cheap: what one update of it takes, `working` bytes for each lane, is
    bounded.
    """
    most = 2 ** int(np.log2(max(_AT_ONCE[platform == "cpu"] // max(working, 1), 1)))
    if platform == "cpu":
        # A block's state should stay in the first-level cache; more than 512 lanes wait for each other too long.
        block = block or min(
            int(np.clip(2 ** int(np.log2(8_192 / bytes_per_lane)), together or 32, 512)), max(most, together or 1)
        )
        workers = max(cores(), num_devices) + 1  # one more: while some compute, another stores what it found
        chunk, updates_per_test = int(np.clip(2 ** int(np.log2(2**23 / bytes_per_lane)), block, 2**19)), 1
    else:
        block = block or min(2**20, most)
        chunk, updates_per_test, workers = block, 16, 2 * num_devices
    share = -(-lanes // (max(cores(), num_devices) if platform == "cpu" else num_devices))
    chunk = min(max(chunk, block), 1 << max(share - 1, 1).bit_length())
    chunk = -(-chunk // block) * block
    later = -(-min(chunk, 2**14 if platform == "cpu" else chunk) // block) * block
    return Tuning(block, chunk, later, updates_per_test, workers)


def stops(max_steps: int) -> list[tuple[int, int]]:
    """The passes: `(start, stop)` in updates, contiguous, the last one ending at `max_steps`.

    >>> stops(1000)
    [(0, 32), (32, 128), (128, 512), (512, 1000)]
    >>> stops(0)
    [(0, 0)]
    """
    ends, end = [], FIRST_STOP
    while end < max_steps:
        ends.append(end)
        end *= GROWTH
    ends.append(max_steps)
    return list(zip([0, *ends[:-1]], ends, strict=True))


def bytes_of(state) -> int:
    """Size of one lane's state, from its shapes."""
    return max(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)), 1)


def worker_pool(workers: int) -> ThreadPoolExecutor:
    """Host threads that see the caller's JAX settings, which `with jax.enable_x64(True)` makes per thread."""
    refuse_forked()
    settings = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision

    def adopt():
        jax.enable_x64(settings[0]).__enter__()
        jax.default_matmul_precision(settings[1]).__enter__()

    return ThreadPoolExecutor(workers, initializer=adopt)


def working_bytes(equations) -> int:
    """Bytes of all intermediate arrays of a function at one point: an upper bound on what is alive at once."""
    outputs = [var.aval for equation in equations for var in equation.outvars]
    return max(sum(prod(aval.shape) * aval.dtype.itemsize for aval in outputs if hasattr(aval, "dtype")), 8)


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
        wanted = min(length * self.seconds / max(seconds, 1e-6), LONGER * length)
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
