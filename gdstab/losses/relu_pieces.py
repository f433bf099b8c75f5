r"""The exact risk of a shallow ReLU network with its first and second derivatives, and the modified gradient.

With few neurons the pieces need no sort: every breakpoint looks for its successor, ties going by index, which compares
all pairs; with more than `FEW`, values and gradients come from `relu_spline`, which sorts. Second derivatives compare
pairs anyway: they hold the pieces fixed and add what each neuron gains as its own breakpoint moves. So does the
modified gradient, whose neurons each have an interval of their own.

All functions take `theta` = (w, b, v, c) with any number of trailing lanes: w, b, v [neurons, *lanes], c [*lanes].
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.lax import stop_gradient

from gdstab._numerics import tree_sum
from gdstab.losses import relu_spline
from gdstab.losses.relu_spline import breakpoints, moments, residual_on

FEW = 6
"""Up to so many breakpoints and edges of the target, comparing all pairs is faster than sorting (engine, CPU)."""


class Pieces(NamedTuple):
    """The residual on every piece, [pieces, *lanes] each, and the neurons there, [pieces, neurons, *lanes]."""

    mid: Any
    half: Any
    preactivation: Any
    slope: Any
    residual: Any  # list of Legendre coefficients, lowest first


def sorts(neurons: int, target) -> bool:
    """Whether values and gradients come from sorted breakpoints."""
    return neurons + target.edges.size > FEW


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def risk(convention, problem, theta):
    r"""The integral $\int_\alpha^\beta (N_\theta - f)^2$, [*lanes]; its derivative is `gradient`."""
    del convention
    if sorts(len(theta[0]), problem.target):
        return relu_spline.risk(problem, theta)
    pieces = _pieces(problem, theta)
    squares = sum(c * c * (2 / (2 * k + 1)) for k, c in enumerate(pieces.residual))
    return tree_sum(pieces.half * squares)


@partial(risk.defjvp, symbolic_zeros=True)
def _risk_jvp(convention, primals, tangents):
    problem, theta = primals
    moved = _moved(theta, tangents)
    products = [a * b for a, b in zip(gradient(convention, problem, theta), moved, strict=True)]
    return risk(convention, problem, theta), sum(jnp.sum(p, axis=0) for p in products[:3]) + products[3]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def gradient(convention, problem, theta):
    """The generalised gradient, of the shapes of `theta`; its derivative is the Hessian where that exists."""
    if sorts(len(theta[0]), problem.target):
        return relu_spline.gradient(convention, problem, theta)
    return _gradient(convention, problem, theta)


@partial(gradient.defjvp, symbolic_zeros=True)
def _gradient_jvp(convention, primals, tangents):
    """The pieces as they are, and each neuron's integral as its own breakpoint moves; the other ends cancel."""
    problem, theta = primals
    moved = _moved(theta, tangents)
    value, (dw, db, dv, dc) = jax.jvp(partial(_gradient, convention, problem), (theta,), (moved,))
    w, b, v, _ = theta
    raw = breakpoints(w, b)
    inside = (w != 0) & (problem.low < raw) & (raw < problem.high)
    at = jnp.where(inside, raw, problem.low)
    steep = jnp.where(inside, jnp.abs(w), 1)
    kick = jnp.where(inside, 2 * v * (1 - problem.leak) * residual_at(problem, theta, at) / steep, 0)
    kick = kick * (moved[1] + at * moved[0])
    return value, (dw + at * kick, db + kick, dv, dc)


@jax.custom_jvp
def modified_gradient(problem, theta, modified, rising):
    r"""The gradient $G^J$ of one network; `modified` [neurons] marks $J_+ \cup J_-$, `rising` [neurons] marks $J_+$."""
    return _modified(problem, theta, modified, rising)


@partial(modified_gradient.defjvp, symbolic_zeros=True)
def _modified_jvp(primals, tangents):
    """Rows of modified neurons follow their breakpoint wherever it is, the others as in `gradient`."""
    problem, theta, modified, rising = primals
    moved = _moved(theta, tangents)
    fixed = partial(_modified, problem, modified=modified, rising=rising)
    value, (dw, db, dv, dc) = jax.jvp(fixed, (theta,), (moved,))
    w, b, v, _ = theta
    raw = breakpoints(w, b)
    inside = (w != 0) & (problem.low < raw) & (raw < problem.high)
    follows = jnp.where(modified, w != 0, inside)
    at = jnp.where(follows, raw, problem.low)
    slope = jnp.where(modified, jnp.where(rising, w, -w), jnp.abs(w))
    kick = jnp.where(follows, 2 * v * residual_at(problem, theta, at) / jnp.where(follows, slope, 1), 0)
    kick = kick * (moved[1] + at * moved[0])
    return value, (dw + at * kick, db + kick, dv, dc)


def _modified(problem, theta, modified, rising):
    """The modified gradient with the pieces held fixed."""
    w, b, v, _ = theta
    base = _gradient("zero", problem, theta)
    raw = breakpoints(w, b)
    anchor = jnp.where(rising, problem.high, problem.low)
    lanes = tuple(jnp.broadcast_to(part[..., None], (*part.shape, w.size)) for part in theta)
    pieces = _pieces(problem, lanes, jnp.minimum(raw, anchor), jnp.maximum(raw, anchor))
    sign = jnp.where((anchor > raw) == rising, 1, -1).astype(w.dtype)  # along the axis from the lower to the upper end
    level, tilt = moments(pieces.half, pieces.residual)
    own = w[None] * pieces.mid + b[None]
    shares = (
        2 * v * sign * tree_sum(pieces.mid * level + tilt),
        2 * v * sign * tree_sum(level),
        2 * sign * tree_sum(own * level + w[None] * tilt),
    )
    here = modified & (w != 0)
    return (*(jnp.where(here, new, old) for new, old in zip(shares, base[:3], strict=True)), base[3])


def residual_at(problem, theta, x):
    """The residual at points `x` [points, *lanes], on the whole line."""
    w, b, v, c = theta
    preactivation = w[None] * x[:, None] + b[None]
    slope = jnp.where(preactivation > 0, 1, problem.leak)
    return c[None] + tree_sum(v[None] * (slope * preactivation), axis=1) - problem.target.taylor(x)[0]


def _moved(theta, tangents):
    """The tangent of `theta`; anything else that moves is refused, rather than given a derivative of zero."""
    others = [leaf for part in (tangents[0], *tangents[2:]) for leaf in jax.tree.leaves(part)]
    if not all(isinstance(leaf, SymbolicZero) for leaf in others):
        raise ValueError(
            "expected derivatives of ShallowReLU with respect to theta only, got one for its interval, target or leak; "
            "close over the loss and differentiate in theta"
        )
    pairs = zip(theta, tangents[1], strict=True)
    return tuple(jnp.zeros_like(part) if isinstance(t, SymbolicZero) else t for part, t in pairs)


def _pieces(problem, theta, low=None, high=None):
    """The residual between `low` and `high`, by default the whole interval."""
    w, b, v, c = theta
    low = jnp.broadcast_to(problem.low if low is None else low, c.shape)
    high = jnp.broadcast_to(problem.high if high is None else high, c.shape)
    edges = problem.target.edges.astype(w.dtype)
    edges = jnp.broadcast_to(edges.reshape(-1, *(1,) * c.ndim), (edges.size, *c.shape))
    points = jnp.concatenate([breakpoints(w, b), edges])
    mid, half = (stop_gradient(part) for part in _partition(points, low, high))
    preactivation = w[None] * mid[:, None] + b[None]
    slope = jnp.where(preactivation > 0, 1, problem.leak)
    network = c[None] + tree_sum(v[None] * (slope * preactivation), axis=1)
    rise = half * tree_sum(v[None] * (slope * w[None]), axis=1)
    return Pieces(mid, half, preactivation, slope, residual_on(problem.target, mid, half, network, rise))


def _partition(points, low, high):
    """Midpoints and half lengths of the pieces into which points cut an interval; equal points make empty pieces."""
    points = jnp.clip(points, low[None], high[None])
    order = np.arange(len(points))
    first = (order[:, None] < order[None, :]).reshape(len(points), len(points), *(1,) * low.ndim)
    here, there = points[:, None], points[None, :]
    later = (there > here) | ((there == here) & first)
    ends = jnp.min(jnp.where(later, there, high[None, None]), axis=1)
    ends = jnp.concatenate([jnp.min(points, axis=0)[None], ends])
    starts = jnp.concatenate([low[None], points])
    half = (ends - starts) / 2
    return starts + half, half


def _gradient(convention, problem, theta):
    """The gradient with the pieces held fixed."""
    w, _, v, _ = theta
    pieces = _pieces(problem, theta)
    level, tilt = moments(pieces.half, pieces.residual)
    by_weight, by_bias = _slopes(convention, problem, theta, pieces)
    first = pieces.mid * level + tilt
    outer = pieces.slope * (pieces.preactivation * level[:, None] + w[None] * tilt[:, None])
    return (
        2 * v * tree_sum(by_weight * first[:, None]),
        2 * v * tree_sum(by_bias * level[:, None]),
        2 * tree_sum(outer),
        2 * tree_sum(level),
    )


def _slopes(convention, problem, theta, pieces):
    """Derivative of the activation as the weight moves and as the bias moves: they differ at w = b = 0 only."""
    w, b, _, _ = theta
    degenerate = ((w == 0) & (b == 0))[None]
    if convention == "zero":
        slope = jnp.where(degenerate, 0, pieces.slope)
        return slope, slope
    right = convention == "right"
    rises = (pieces.mid > 0) if right else (pieces.mid < 0)
    by_weight = jnp.where(rises, 1, problem.leak)[:, None]
    by_bias = 1 if right else problem.leak
    return jnp.where(degenerate, by_weight, pieces.slope), jnp.where(degenerate, by_bias, pieces.slope)
