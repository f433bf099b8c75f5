"""Sobol points: evenly spread, whole in memory or by number, scrambled in independent replicates."""

import warnings
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32
from scipy.stats import qmc

from gdstab._validate import check_box, check_count, check_dtype
from gdstab.sampling.sources import Points, divide

BITS = 32
"""Of every coordinate, and of a word on the device."""
DIGIT = 8
"""Bits of a position that are looked up together."""


def sobol(num: int, box: Any, *, start: int = 0, seed: int | None = None, dtype: Any = None) -> Points:
    """Points number start, ..., start + num - 1 of a Sobol sequence stretched over a box, [num, dim].

    Without a seed the sequence is the plain one, whose first point is the low corner; with a seed it is scrambled
    (Owen 1998), which makes averages unbiased. It ends after 2^30 points (`scipy.stats.qmc.Sobol`).

    Examples
    --------
    >>> sobol(3, ((0, 1), (0, 2))).tolist()
    [[0.0, 0.0], [0.5, 1.0], [0.75, 0.5]]
    """
    sides, dtype = check_box(box), check_dtype(dtype)
    num, start = check_count(num, "num"), check_count(start, "start", least=0)
    if start + num > 2**30:
        raise ValueError(f"expected start + num of at most 2^30, got {start + num}; draw random points beyond that")
    sequence = qmc.Sobol(len(sides), scramble=seed is not None, rng=seed)
    if start:
        sequence.fast_forward(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a length that is no power of 2 costs balance, and is allowed
        unit = sequence.random(num)
    return jnp.asarray((sides[:, 0] + (sides[:, 1] - sides[:, 0]) * unit).astype(dtype))


class SobolSource(eqx.Module):
    r"""Independent scrambled Sobol sets in a box, one after the other, made when asked for.

    Replicate r is the beginning, of length n = num / replicates, of the sequence `scipy.stats.qmc.Sobol(dim, bits=32,
    rng=numpy.random.default_rng([seed, r]))`: a linear matrix scramble and a digital shift (Matousek 1998), after which
    every point is uniform in the box. The mean over a replicate is unbiased, and the replicates' means are independent:
    their spread gives the standard error (Owen 1998).

    A length that is a power of 2 keeps the balance of the set; another one is allowed and just as unbiased, but its
    error falls about as 1/n, where a full set's falls as $n^{-3/4}$ for the share of a region with a smooth boundary in
    the plane, and faster for smooth averages (Owen 2020, arXiv:2008.08051).

    Parameters
    ----------
    num
        Points in all: a multiple of `replicates`, and at most 2^30 for each.
    box
        ((low, high), ...); points lie in [low, high) on every axis.
    replicates
        How many; 16 or more make the t-interval over them short.
    seed
        A non-negative integer.
    dtype
        float64 where JAX has it enabled, float32 elsewhere, where coordinates are cut to 24 bits.

    Notes
    -----
    Points are linear over bits: number p is $x_0 \oplus \bigoplus_k (x_{2^k} \oplus x_0)$ over the bits k of p, where
    $\oplus$ is exclusive or. So all it takes are the points number 0 and $2^k$ of every replicate. Going through the
    sequences to get them costs the host about 1 ns per point: 20 s for 16 replicates of the largest length.

    Raises
    ------
    ValueError
        If num is no multiple of the replicates or too large, or the box is none, or has more than 21201 axes.

    Examples
    --------
    >>> source = SobolSource(64, ((0, 1), (0, 1)), replicates=4)
    >>> points = source(jnp.arange(64)).reshape(4, 16, 2)
    >>> jnp.sort((points[:, :, 0] * 16).astype(int)).tolist() == [list(range(16))] * 4
    True
    """

    design: ClassVar[str] = "replicates"

    tables: UInt32[Array, "entries dim"]  # of replicate 0, its digit 0: 256 entries, its digit 1: ..., of replicate 1
    low: Float[Array, " dim"]
    size: Float[Array, " dim"]
    below: Float[Array, " dim"]  # the last number below the high end
    num_points: int = eqx.field(static=True)
    parts: int = eqx.field(static=True)

    def __init__(self, num, box, replicates=16, seed=0, dtype=None):
        sides, dtype = check_box(box), check_dtype(dtype)
        self.num_points, self.parts = check_count(num, "num"), check_count(replicates, "replicates")
        seed = check_count(seed, "seed", least=0)
        if num % replicates or num // replicates > 2**30:
            raise ValueError(
                f"expected a number of points that {replicates} replicates share equally, at most 2^30 each, got "
                f"{num}; ask for {max(min(num // replicates, 2**30), 1) * replicates}"
            )
        if len(sides) > qmc.Sobol.MAXDIM:
            raise ValueError(f"expected a box of at most {qmc.Sobol.MAXDIM} axes, got {len(sides)}; draw random points")
        length = num // replicates
        basis = [_positions(length, len(sides), np.random.default_rng([seed, part])) for part in range(replicates)]
        self.tables = jnp.asarray(np.concatenate([_tables(*each) for each in basis]))
        low, high = sides.astype(dtype).T
        if not (low < high).all():
            raise ValueError(f"expected a box whose ends {dtype} can tell apart, got {box!r}; widen it")
        self.low, self.size = jnp.asarray(low), jnp.asarray((sides[:, 1] - sides[:, 0]).astype(dtype))
        self.below = jnp.asarray(np.nextafter(high, low))

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`, with indices up to 2^30 and group below 2^31."""
        words = self.integers(indices, group)
        if self.low.dtype == jnp.float64:
            unit = words.astype(jnp.float64) * 2.0**-BITS
        else:
            unit = ((words >> np.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)).astype(self.low.dtype)
        return jnp.minimum(self.low[None, :] + self.size[None, :] * unit, self.below[None, :])

    def integers(self, indices: Int[Array, " points"], group: Any = 0) -> UInt32[Array, "points dim"]:
        """The points in the unit cube, times 2^32."""
        part, position = divide(indices, group, self.num_points // self.parts)
        digits = len(self.tables) // self.parts >> DIGIT
        row = part.astype(jnp.int32) * (digits << DIGIT)
        words = jnp.zeros((len(indices), self.tables.shape[1]), jnp.uint32)
        for _ in range(digits):
            words = words ^ self.tables[row + (position % 2**DIGIT).astype(jnp.int32)]
            row, position = row + 2**DIGIT, position >> np.uint32(DIGIT)
        return words


def _positions(length, dim, rng):
    """The points number 0 and 1, 2, 4, ... of a scrambled sequence, below its length, as integers."""
    sequence, found, at = qmc.Sobol(dim, bits=BITS, rng=rng), [], 0
    for number in [0, *(1 << bit for bit in range((length - 1).bit_length()))]:
        if number > at:
            sequence.fast_forward(number - at)
        found.append(sequence.random(1)[0])
        at = number + 1
    words = (np.stack(found) * 2.0**BITS).astype(np.uint32)
    return words[0], words[1:] ^ words[0]


def _tables(shift, basis):
    """What each digit of a position, of 8 bits, contributes; the first also brings the shift."""
    digits = max(-(-len(basis) // DIGIT), 1)
    basis = np.concatenate([basis, np.zeros((digits * DIGIT - len(basis), len(shift)), np.uint32)])
    tables = np.zeros((digits, 1, len(shift)), np.uint32)
    for bits in basis.reshape(digits, DIGIT, 1, -1).swapaxes(0, 1):
        tables = np.concatenate([tables, tables ^ bits], axis=1)
    tables[0] ^= shift
    return tables.reshape(-1, len(shift))
