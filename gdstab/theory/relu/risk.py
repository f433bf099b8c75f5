r"""The risk $L(\theta) = \int_\alpha^\beta (N_\theta(x) - f(x))^2 dx$ and its derivatives, exact for polynomials.

Between two neighbouring breakpoints every integrand is a polynomial, so Gauss and Legendre's rule with enough nodes
per piece is exact up to rounding. On the host, in float64, for one point or for lanes: meant for judging points, not
for descending.
"""

from typing import Any

import numpy as np
from numpy.polynomial import polynomial

from gdstab import _arguments as arguments
from gdstab._types import Theta
from gdstab.theory.relu.neurons import (
    UNIT,
    NeuronType,
    Parameters,
    check_interval,
    check_leak,
    check_target,
    default_tolerance,
    join_parameters,
    neuron_types,
    split_parameters,
)

LANES = 2**10
"""Lanes at a time: few enough that the arrays, lanes times the square of the number of neurons, stay in cache."""


@arguments.closed_form(leak=arguments.single)
def risk(theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0) -> np.ndarray:
    r"""$L(\theta)$ for a polynomial target, coefficients lowest first; the shape is that of the lanes.

    Examples
    --------
    >>> round(float(risk((0.0, 1.0, 0.0, 0.5))), 12)  # the best constant, against f(x) = x
    0.083333333333
    """

    def value(parameters, field):
        del parameters
        return np.sum(field.weights * field.residual**2, axis=-1)

    return _over_lanes(value, theta, interval, target, leak)


@arguments.closed_form(leak=arguments.single)
def gradient(theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0) -> np.ndarray:
    r"""A generalised gradient G, flat as theta: the partial derivatives where they exist ([C] 4), else zero.

    They exist at all neurons but the degenerate ones with $v_j \ne 0$, whose coordinates are set to zero.
    """
    return _over_lanes(_gradient, theta, interval, target, leak)


@arguments.closed_form(leak=arguments.single)
def risk_and_steepness(
    theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""$L$, $\lVert G \rVert$, and what the rounding of the latter is relative to, in one pass; shapes of the lanes.

    The scale is $\lVert 2 \int |\nabla N_\theta| (|c| + \sum_j |v_j \sigma_j| + |f|) dx \rVert$: the gradient's own
    sums with every term replaced by its absolute value.
    """

    def measures(parameters, field):
        w, b, v, c = parameters
        loss = np.sum(field.weights * field.residual**2, axis=-1)
        steepness = np.linalg.norm(_gradient(parameters, field), axis=-1)
        field.residual = np.abs(c)[..., None] + np.abs(field.target)
        field.residual += np.sum(np.abs(v[..., None] * field.activation), axis=-2)
        field.activation, field.x = np.abs(field.activation), np.abs(field.x)
        scale = np.linalg.norm(_gradient(Parameters(w, b, np.abs(v), c), field), axis=-1)
        return np.stack([loss, steepness, scale], axis=-1)

    loss, steepness, scale = np.moveaxis(_over_lanes(measures, theta, interval, target, leak), -1, 0)
    return np.asarray(loss), np.asarray(steepness), np.asarray(scale)


@arguments.closed_form(leak=arguments.single)
def modified_hessian(
    theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0, tol: float | None = None
) -> np.ndarray:
    r"""The Jacobian of the modified gradient $G^J$ at one point, J its semi-inactive neurons ([C] Lemma 4.3).

    It is the Hessian where that exists, that is, without semi-inactive neurons. A semi-inactive neuron is continued as
    if its breakpoint stayed inside: the curvature on the side on which it wakes up. With r the residual,
    $H = 2 \int \nabla N \nabla N^T + 2 \int r \nabla^2 N$, and a neuron with a breakpoint t adds to its (w, b) block
    $2 (1 - \zeta) \frac{v}{|w|} r(t) \, (t, 1)(t, 1)^T$. Symmetric, shape [3N + 1, 3N + 1].

    Raises
    ------
    ValueError
        At a degenerate neuron, or one of type 1 with its breakpoint at an end (leaky: also a semi-inactive one), where
        G^J has no derivative; for more than one point.
    """
    parameters = split_parameters(theta)
    if parameters.c.ndim:
        raise ValueError(f"expected one point, got lanes of shape {parameters.c.shape}; loop over them")
    leak, (alpha, beta) = check_leak(leak), check_interval(interval)
    types = neuron_types(theta, interval=interval, tol=tol)
    _check_differentiable(parameters, types, (alpha, beta), leak, default_tolerance(theta, tol))
    field = _Field(parameters, (alpha, beta), check_target(target), leak)
    w, b, v, _ = parameters
    N = w.size
    slope, x, r = field.slope, field.x, field.residual
    J = np.concatenate([v[:, None] * slope * x, v[:, None] * slope, field.activation, np.ones((1, x.size))])
    H = 2 * (J * field.weights) @ J.T
    j = np.arange(N)
    for offset, mixed in ((0, slope * x), (N, slope)):
        second = 2 * np.sum(field.weights * mixed * r, axis=-1)
        H[offset + j, 2 * N + j] += second
        H[2 * N + j, offset + j] += second
    kinked = j[np.isin(types, (NeuronType.TYPE_2, NeuronType.SEMI_INACTIVE))]
    t = np.clip(-b[kinked] / w[kinked], alpha, beta)
    z = w[:, None] * t + b[:, None]
    at_kink = parameters.c + v @ np.maximum(z, leak * z) - polynomial.polyval(t, check_target(target))
    jump = 2 * (1 - leak) * v[kinked] / np.abs(w[kinked]) * at_kink
    H[kinked, kinked] += jump * t**2
    H[kinked, N + kinked] += jump * t
    H[N + kinked, kinked] += jump * t
    H[N + kinked, N + kinked] += jump
    return H


def _check_differentiable(parameters, types, interval, leak, tol):
    w, b, _, _ = parameters
    ends = np.stack([w * interval[0] + b, w * interval[1] + b])
    touching = (types == NeuronType.TYPE_1) & (np.abs(ends).min(0) <= tol * np.abs(ends).max(0))
    bad = (types == NeuronType.DEGENERATE) | touching | ((types == NeuronType.SEMI_INACTIVE) & (leak > 0))
    if bad.any():
        j = int(np.argmax(bad))
        raise ValueError(
            f"expected a point where the modified gradient has a derivative, got neuron {j} of type "
            f"{NeuronType(types[j]).name} with (w, b) = ({w[j]:g}, {b[j]:g}); drop the neuron or move its breakpoint"
        )


class _Field:
    """Nodes x [..., Q] with weights, and there: slope and activation [..., N, Q], target and residual [..., Q]."""

    def __init__(self, parameters, interval, coefficients, leak):
        w, b, v, c = parameters
        alpha, beta = interval
        with np.errstate(over="ignore"):
            t = np.clip(np.divide(-b, w, out=np.full(w.shape, alpha), where=w != 0), alpha, beta)
        ends = (np.full((*c.shape, 1), end) for end in interval)
        knots = np.sort(np.concatenate([*ends, t], axis=-1), axis=-1)
        half, middle = np.diff(knots) / 2, (knots[..., 1:] + knots[..., :-1]) / 2
        nodes, weights = np.polynomial.legendre.leggauss(max(2, coefficients.size))
        self.x = (middle[..., None] + half[..., None] * nodes).reshape(*c.shape, -1)
        self.weights = (half[..., None] * weights).reshape(*c.shape, -1)
        z = w[..., None] * self.x[..., None, :] + b[..., None]
        alive = (w != 0) | (b != 0)
        self.slope = np.where(z > 0, 1.0, leak) * alive[..., None]
        self.activation = self.slope * z
        self.target = polynomial.polyval(self.x, coefficients)
        self.residual = c[..., None] + np.sum(v[..., None] * self.activation, axis=-2) - self.target


def _gradient(parameters, field):
    weighted = 2 * field.weights * field.residual
    parts = (
        parameters.v * np.sum(field.slope * (field.x * weighted)[..., None, :], axis=-1),
        parameters.v * np.sum(field.slope * weighted[..., None, :], axis=-1),
        np.sum(field.activation * weighted[..., None, :], axis=-1),
    )
    return join_parameters(*parts, np.sum(weighted, axis=-1))


def _over_lanes(function, theta, interval, target, leak):
    """Apply `function(parameters, field)` to all lanes, `LANES` at a time."""
    w, b, v, c = split_parameters(theta)
    interval, coefficients, leak = check_interval(interval), check_target(target), check_leak(leak)
    flat = [part.reshape(-1, part.shape[-1]) for part in (w, b, v)] + [c.reshape(-1)]
    out = []
    for start in range(0, max(c.size, 1), LANES):
        lanes = Parameters(*(part[start : start + LANES] for part in flat))
        out.append(function(lanes, _Field(lanes, interval, coefficients, leak)))
    values = np.concatenate(out)
    return values.reshape(c.shape + values.shape[1:])
