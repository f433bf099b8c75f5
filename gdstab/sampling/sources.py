"""What a source of points is, and how its points are numbered."""

from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

GROUP = 4096
"""Points per logical group of random draws, and the unit of a source's `group`; part of the meaning of a seed."""

Points = Float[Array, "points dim"]
Words = UInt32[Array, " points"]


class PointSource(Protocol):
    """Points by their number, made inside jit when asked for, so that 10^9 of them need no memory.

    A source may also say that its points are made in `parts` consecutive, equally large parts, which divide
    `num_points`, and by which `design`: "replicates" if each part is an independent randomisation of one design that
    fills the space evenly, "strata" if each is a random sample of a stratum of equal probability. Without these two
    attributes its points are one part, and independent.
    """

    num_points: int

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`; two words, so that 32-bit integers reach past 2^31."""
        ...


def divide(indices: Int[Array, " points"], group: Any, n: int) -> tuple[Words, Words]:
    """Quotient and remainder of `group * 4096 + indices` by n, in 32 bits.

    Both `indices` and `n` may be up to 2^30, `group` and the quotient up to 2^31: long division, twelve bits of which
    are those of the group and cost nothing where that is one number for all.

    >>> [word.tolist() for word in divide(jnp.array([0, 5]), 10**9, 10**6)]
    [[4096000, 4096000], [0, 5]]
    """
    group = jnp.asarray(group).astype(jnp.uint32)
    quotient, rest = group // n, group % n
    for _ in range(GROUP.bit_length() - 1):
        rest = 2 * rest
        carry = rest >= n
        quotient, rest = 2 * quotient + carry.astype(jnp.uint32), jnp.where(carry, rest - np.uint32(n), rest)
    rest = rest + indices.astype(jnp.uint32)
    return quotient + rest // n, rest % n
