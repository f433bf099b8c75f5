"""Walks along M, and how much of M is stable."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline

from gdstab import curvature
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._numerics import rank_tolerance, tolerance
from gdstab._staging import one_by_one
from gdstab._types import LossFn, Theta
from gdstab._validate import check_step_sizes
from gdstab.minima.manifold import Residual, correct, flat_loss, flat_residual, jacobian, require_minimum, split


@recorded({"arc_length": "point", "sharpness": "point", "theta": "point"})
class Curve(NamedTuple):
    """Points along a curve on M, in order; `points` of them."""

    theta: Theta
    """Leaves [points, ...]."""
    arc_length: Float[np.ndarray, " points"]
    """Signed, zero at the point that `trace_curve` was given."""
    sharpness: Float[np.ndarray, " points"]
    r"""$\lambda_{max}$ of the Hessian."""


@entry
def trace_curve(
    loss: LossFn, theta: Theta, length: float, step: float, *, direction: Theta | None = None, residual: Residual = None
) -> Curve:
    r"""Walk along M from `theta`, both ways, `length` each, in steps of `step`.

    Predictor: a step along the tangent; corrector: three Gauss-Newton steps. Every point is on M to rounding. Where M
    has more than one dimension a `direction` (structure of `theta`) is needed; it is projected to the tangent space
    and carried along. Arc length is chord times $\frac{\varphi/2}{\sin(\varphi/2)}$, $\varphi$ the angle between
    the tangents at its ends: an error of fourth order in `step`.

    Raises
    ------
    ValueError
        If `theta` is not on M, M is a point there, or no direction is given where one is needed.
    """
    if not 0 < step <= length:
        raise ValueError(f"expected 0 < step <= length, but got step {step} and length {length}.")
    r, x, unravel = flat_residual(loss, theta, residual)
    require_minimum(r, x)
    tangent = split(r, x)[1]
    if tangent.shape[0] != 1 and direction is None:
        raise ValueError(f"M has dimension {tangent.shape[0]} at theta: pass a `direction` to walk along (a tangent).")
    asked = tangent[0] if direction is None else np.asarray(ravel_pytree(direction)[0])
    along = tangent.T @ (tangent @ asked)
    if not np.linalg.norm(along) > tolerance(x.dtype) * np.linalg.norm(asked):
        raise ValueError("`direction` has no component tangent to M at theta: choose a row of `tangent_space`.")
    along = jnp.asarray(along / np.linalg.norm(along))
    on_flat = eqx.Partial(flat_loss, loss, unravel)
    ways = [
        _walk(on_flat, r, x, sign * along, step=jnp.asarray(step, x.dtype), num_steps=round(length / step))
        for sign in (-1.0, 1.0)
    ]
    (back, back_arc, back_top), (on, on_arc, on_top) = (jax.tree.map(np.asarray, way) for way in ways)
    points = np.concatenate([back[::-1], np.asarray(x)[None], on])
    arc = np.concatenate([-np.cumsum(back_arc)[::-1], np.zeros(1), np.cumsum(on_arc)])
    top = np.concatenate([back_top[::-1], np.asarray(curvature.eigenvalues(on_flat, x)[-1])[None], on_top])
    return Curve(jax.vmap(unravel)(jnp.asarray(points)), arc, top)


@jit
def _walk(on_flat, r, x, along, *, step, num_steps):
    def advance(carry, _):
        x, along = carry
        moved = x + step * along
        for _ in range(3):
            moved = correct(r, moved)
        J = jacobian(r, moved)
        ahead = along - jnp.linalg.pinv(J, rtol=rank_tolerance(J.shape, J.dtype)) @ (J @ along)
        ahead = ahead / jnp.linalg.norm(ahead)
        half = jnp.arcsin(jnp.minimum(jnp.linalg.norm(ahead - along) / 2, 1.0))
        arc = jnp.linalg.norm(moved - x) / jnp.sinc(half / jnp.pi)
        return (moved, ahead), (moved, arc, curvature.eigenvalues(on_flat, moved)[-1])

    return jax.lax.scan(advance, (x, along), length=num_steps)[1]


def stable_length(
    curve: Curve, step_sizes: Float[np.ndarray, " steps"] | Sequence[float]
) -> Float[np.ndarray, " steps"]:
    r"""Length of the part of a curve on M with $\lambda_{max} < 2 / \eta$, for every step size ([A] Figure 1(b)).

    The crossings are those of a cubic spline of the sharpness in arc length; where the whole curve is stable the
    answer is the length traced, a lower bound.
    """
    spline = CubicSpline(curve.arc_length, curve.sharpness)
    ends = curve.arc_length[[0, -1]]

    def stable(level):
        cuts = np.unique(np.concatenate([ends, spline.solve(level, extrapolate=False)]))
        below = spline((cuts[1:] + cuts[:-1]) / 2) < level
        return np.sum(np.diff(cuts)[below])

    return np.array([stable(2 / eta) for eta in check_step_sizes(step_sizes)])


def stable_part(
    loss: LossFn,
    points: Theta,
    step_sizes: Float[np.ndarray, " steps"] | Sequence[float],
    *,
    map: Callable = one_by_one,  # noqa: A002
) -> Int[np.ndarray, " steps"]:
    r"""How many of the sampled minima, [num, ...], have $\lambda_{max} < 2 / \eta$, for every step size.

    Counts, not shares, so that `estimators` can put an interval on them.
    """
    tops = np.asarray(map(lambda theta: curvature.eigenvalues(loss, theta)[-1], points))
    return np.sum(tops[None, :] < 2 / np.asarray(check_step_sizes(step_sizes))[:, None], axis=1)
