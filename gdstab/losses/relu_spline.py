r"""The exact risk of a shallow ReLU network and its gradient: a spline with sorted kinks, and running sums over it.

On $[\alpha, \beta]$ the network is a straight line that bends by $(1 - \zeta)\,v_j |w_j|$ at breakpoints $t_j$ inside.
A sorting network of fixed shape (Batcher, *Sorting networks and their applications*, 1968) orders the breakpoints of
all lanes at once, a stage by one vector operation, where XLA sorts by comparing scalars; running sums give the network
on the pieces in between, and the integrals of the residual up to each breakpoint, which the same exchanges in reverse
order bring back to the neurons. No index depends on data.

On the piece $[m - h, m + h]$ the residual is $r = \sum_k \rho_k P_k((x - m) / h)$ in the Legendre basis, so that
$\int r^2 = h \sum_k 2 \rho_k^2 / (2 k + 1)$: a sum of squares, never negative, whose rounding error is relative to
$r^2$ and not to the terms that cancel in it.

All functions take `theta` = (w, b, v, c) with any number of trailing lanes: w, b, v [neurons, *lanes], c [*lanes].
Derivatives are those of `relu_pieces`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gdstab._numerics import tree_sum


class Problem(NamedTuple):
    """What the network is fitted to, as arrays of one dtype."""

    low: Any
    high: Any
    leak: Any
    target: Any


class Bends(NamedTuple):
    """Where the neurons bend, [neurons, *lanes] each."""

    at: Any  # the breakpoint, clipped to the interval
    inside: Any  # whether it lies in the interior: else the neuron is a straight line
    slope: Any  # of the activation on the left of `at`, and on the right too unless it is inside


class Spline(NamedTuple):
    """The residual on the pieces, [pieces, *lanes] each, and the exchanges that have sorted their ends."""

    length: Any
    residual: Any  # list of Legendre coefficients, lowest first
    exchanges: Any


def risk(problem, theta):
    r"""The integral $\int_\alpha^\beta (N_\theta - f)^2$, [*lanes]."""
    theta = _filled(problem, theta)
    spline = _spline(problem, theta, _bends(problem, theta))
    squares = sum(c * c * (1 / (2 * k + 1)) for k, c in enumerate(spline.residual))
    return tree_sum(spline.length * squares)


def gradient(convention, problem, theta):
    """The generalised gradient, of the shapes of `theta`.

    Its entries err by rounding of the integral of the residual over the whole interval, times their factors.
    """
    neurons = len(theta[0])
    theta = _filled(problem, theta)
    w, b, v, _ = theta
    bends = _bends(problem, theta)
    spline = _spline(problem, theta, bends)
    before, leaning, level, tilt = _integrals(spline)
    tilt = tilt[None] + (problem.high - bends.at) * level[None]  # about each breakpoint
    bent, rises, flat = bends.inside, w > 0, bends.slope
    degenerate = (w == 0) & (b == 0)
    if convention == "zero":
        flat = jnp.where(degenerate, 0, flat)
    else:
        bent, rises = bent | degenerate, jnp.where(degenerate, convention == "right", rises)
    outer, inner = jnp.where(bent, problem.leak, flat), jnp.where(bent, 1 - problem.leak, 0)
    mean = outer * level[None] + inner * jnp.where(rises, level[None] - before, before)
    lean = outer * tilt + inner * jnp.where(rises, tilt - leaning, leaning)
    by_bias = mean
    if convention != "zero":  # the bias of a degenerate neuron moves all of it
        by_bias = jnp.where(degenerate, (1 if convention == "right" else problem.leak) * level[None], mean)
    return (
        (2 * v * (lean + bends.at * mean))[:neurons],
        (2 * v * by_bias)[:neurons],
        (2 * (w * lean + (w * bends.at + b) * mean))[:neurons],
        2 * level,
    )


def breakpoints(w, b):
    """Where the neurons bend, `-b / w`; 0 where w = 0: there a degenerate neuron's one-sided slope jumps."""
    return jnp.where(w == 0, 0, -b / jnp.where(w == 0, 1, w))


def legendre(monomials):
    """Legendre coefficients of a polynomial on [-1, 1]."""
    size = len(monomials)
    rows = np.zeros((size, size))
    for k in range(size):
        rows[: k + 1, k] = np.polynomial.legendre.poly2leg([0.0] * k + [1.0])
    return [sum(float(x) * term for x, term in zip(row, monomials, strict=True) if x) for row in rows]


def residual_on(target, mid, half, network, rise):
    """Legendre coefficients on pieces where the network is `network` in the middle and steeper by `rise` / `half`."""
    monomials = [-term * half**k for k, term in enumerate(target.taylor(mid))]
    monomials += [jnp.zeros_like(mid)] * (len(monomials) == 1)
    monomials[0] = monomials[0] + network
    monomials[1] = monomials[1] + rise
    return legendre(monomials)


def moments(half, residual):
    r"""The integrals $\int r$ and $\int (x - m)\,r$ over every piece."""
    return 2 * half * residual[0], half * half * residual[1] * (2 / 3)


def _filled(problem, theta):
    """Neurons of no weight beside the others: one that bends at each edge of the target, and what makes rows 2^k."""
    w, c = theta[0], theta[-1]
    edges = problem.target.edges.astype(w.dtype)
    num = len(w) + edges.size
    empty = (1 << (num - 1).bit_length()) - num
    if not edges.size + empty:
        return theta
    rows = lambda column: jnp.broadcast_to(column.reshape(-1, *(1,) * c.ndim), (column.size, *c.shape))  # noqa: E731
    none, ones = jnp.zeros(empty, w.dtype), jnp.ones_like(edges)
    more = [jnp.concatenate([part, none]) for part in (ones, -edges, jnp.zeros_like(edges))]
    return (*(jnp.concatenate([part, rows(column)]) for part, column in zip(theta, more, strict=False)), c)


def _bends(problem, theta):
    """Breakpoints, and on which side of them each neuron is active."""
    w, b, _, _ = theta
    raw = breakpoints(w, b)
    inside = (w != 0) & (problem.low < raw) & (raw < problem.high)
    active = jnp.where(inside, w < 0, w * ((problem.low + problem.high) / 2) + b > 0)
    return Bends(jnp.clip(raw, problem.low, problem.high), inside, jnp.where(active, 1, problem.leak))


def _spline(problem, theta, bends):
    """The residual between sorted breakpoints."""
    w, b, v, c = theta
    low, high = (jnp.broadcast_to(end, (1, *c.shape)) for end in (problem.low, problem.high))
    kinks = jnp.where(bends.inside, (1 - problem.leak) * v * jnp.abs(w), 0)
    cuts, kinks, exchanges = sort_rows(bends.at, kinks)
    starts = jnp.concatenate([low, cuts])
    length = jnp.concatenate([cuts, high]) - starts
    weights = v * bends.slope
    slope = tree_sum(weights * w)[None] + running_sums(jnp.concatenate([jnp.zeros_like(low), kinks]))
    rise = length * slope
    first = c + tree_sum(weights * (w * problem.low + b))
    network = first[None] + (running_sums(rise) - rise / 2)
    half = length / 2
    return Spline(length, residual_on(problem.target, starts + half, half, network, rise / 2), exchanges)


def _integrals(spline):
    r"""Integrals of $r$ and of $(x - e)\,r$ from $\alpha$ to $e$: for every breakpoint $e$, and for $e = \beta$."""
    level, tilt = moments(spline.length / 2, spline.residual)
    levels = running_sums(level)
    before = jnp.concatenate([jnp.zeros_like(levels[:1]), levels[:-1]])
    tilts = running_sums(tilt - spline.length * (before + level / 2))
    own, leaning = (unsort_rows(spline.exchanges, sums[:-1]) for sums in (levels, tilts))
    return own, leaning, levels[-1], tilts[-1]


class Exchange(NamedTuple):
    """One stage: rows `span` apart, or mirrored in blocks of twice that, have changed places where `swapped`."""

    span: int
    mirrored: bool
    swapped: Any


def sort_rows(
    keys: Float[Array, "rows *lanes"], values: Float[Array, "rows *lanes"]
) -> tuple[Float[Array, "rows *lanes"], Float[Array, "rows *lanes"], list[Exchange]]:
    """Sort every lane by its keys, and values with them, by Batcher's bitonic network.

    Parameters
    ----------
    keys
        A power of two of rows. A NaN makes NaN of the keys it meets.
    values
        What moves along with the keys.

    Returns
    -------
    Keys ascending, values, and the stages for `unsort_rows`.

    Examples
    --------
    >>> keys, values, stages = sort_rows(jnp.array([3.0, 1.0, 4.0, 2.0]), jnp.array([30.0, 10.0, 40.0, 20.0]))
    >>> keys.tolist(), values.tolist()
    ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0])
    >>> unsort_rows(stages, keys).tolist()
    [3.0, 1.0, 4.0, 2.0]
    """
    rows, stages = len(keys), []
    if rows & (rows - 1):
        raise ValueError(f"expected a power of two of rows, got {rows}; pad with infinities")
    block = 1
    while block < rows:
        span, mirrored = block, True
        while span:
            first, second = _pairs(keys, span, mirrored)
            stage = Exchange(span, mirrored, second < first)
            keys = _together(jnp.minimum(first, second), jnp.maximum(first, second), stage)
            values = _exchange(values, stage)
            stages.append(stage)
            span, mirrored = span // 2, False
        block *= 2
    return keys, values, stages


def unsort_rows(stages: list[Exchange], values: Float[Array, "rows *lanes"]) -> Float[Array, "rows *lanes"]:
    """Bring back what stands in sorted order to the order before."""
    for stage in reversed(stages):
        values = _exchange(values, stage)
    return values


def running_sums(values: Float[Array, "rows *lanes"]) -> Float[Array, "rows *lanes"]:
    """Sums of the rows up to each, itself included; what is not finite spoils its whole lane.

    By a triangle of ones: sums of shifted rows are fewer, but XLA computes those anew for each of their readers, which
    took 1.5 to 2.5 times as long for up to 17 rows on a CPU.

    Examples
    --------
    >>> running_sums(jnp.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 3.0, 6.0]
    """
    lower = np.tri(len(values), dtype=values.dtype)
    return jnp.tensordot(lower, values, 1, precision="highest")


def _pairs(values, span, mirrored):
    """The rows to compare, each with its partner: `span` apart, or mirrored in a block of twice that."""
    blocks = values.reshape(-1, 2, span, *values.shape[1:])
    return blocks[:, 0], blocks[:, 1, ::-1] if mirrored else blocks[:, 1]


def _together(first, second, stage):
    second = second[:, ::-1] if stage.mirrored else second
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[2:])


def _exchange(values, stage):
    first, second = _pairs(values, stage.span, stage.mirrored)
    swapped = stage.swapped
    return _together(jnp.where(swapped, second, first), jnp.where(swapped, first, second), stage)
