r"""Which points are critical, and of which kind: the classification against an affine target.

Source: [C] Definition 4.1, Proposition 4.5 and section 5, which rest on Cheridito, Jentzen and Rossmannek, *Landscape
analysis for shallow neural networks* (2022).
"""

import enum
from typing import Any

import numpy as np

from gdstab import _arguments as arguments
from gdstab._types import Theta
from gdstab.theory.relu.levels import level
from gdstab.theory.relu.neurons import (
    UNIT,
    NeuronType,
    check_affine,
    check_interval,
    check_leak,
    check_target,
    default_tolerance,
    is_flat,
    neuron_types,
    split_parameters,
)
from gdstab.theory.relu.risk import modified_hessian, risk_and_steepness


class CriticalType(enum.IntEnum):
    """What a point is. The first case that holds counts, in the order of `classify`."""

    NOT_CRITICAL = 0  # the generalised gradient is not zero
    LOCAL_MINIMUM = 1  # Proposition 4.5 (ii): no global one
    SADDLE_A = 2  # (iii a): a constant realisation
    SADDLE_B = 3  # (iii b): a zigzag
    GLOBAL_MINIMUM = 4  # loss zero
    SADDLE_DEGENERATE = 5  # a flat degenerate neuron, outside the proposition, and none that is not flat
    NOT_DIFFERENTIABLE = 6  # gradient zero but for a degenerate neuron that is not flat: it can be re-awakened
    UNMATCHED = 7  # critical to the tolerance, and none of these: tighten it, or descend further


@arguments.closed_form(leak=arguments.single)
def is_critical(
    theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0, tol: float | None = None
) -> np.ndarray:
    r"""Whether L is differentiable with zero gradient, to a tolerance; any polynomial target; shape of the lanes.

    The gradient is compared with `tol` times what its rounding is relative to, see `risk_and_steepness`. At a
    degenerate neuron with $v_j \ne 0$, L is differentiable only if the residual vanishes: the derivative along
    $(w_j, b_j)$ is $2 v_j \int \max(w x + b, 0) (N_\theta - f) dx$, which is linear in (w, b) for no other residual.

    Examples
    --------
    >>> bool(is_critical((1.0, -2.0, 1.0, 0.5)))  # inactive, and c the mean of f
    True
    """
    problem = {"interval": interval, "target": target, "leak": leak}
    tol = default_tolerance(theta, tol)
    loss, steepness, scale = risk_and_steepness(theta, **problem)
    pinned = _has_pinned(theta, interval, tol) & (loss > tol * _typical_risk(interval, target))
    return np.asarray((steepness <= tol * scale) & ~pinned)


@arguments.closed_form(leak=arguments.single)
def classify(
    theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0, tol: float | None = None
) -> np.ndarray:
    r"""The `CriticalType` of every lane, against an affine target that is not constant.

    `tol` serves every comparison: the gradient, relative to its rounding; the neurons' types; breakpoints relative to
    $\beta - \alpha$, sums of $v_j w_j$ relative to f'; and the loss of a global minimum, relative to the lowest level.

    A critical point with a flat degenerate neuron is a saddle unless the residual r is zero: to second order moving
    $(w_j, b_j, v_j)$ from zero changes L by $2 v_j \int \max(w_j x + b_j, 0)\, r\, dx$, of either sign. With a leak
    the paper has no local minima, and says of saddles which neurons they have, not where their breakpoints lie; so a
    critical point of positive loss is SADDLE_B if a neuron is of type 2 and SADDLE_A if all are flat with $w_j = 0$.

    Raises
    ------
    ValueError
        If the target is constant or no affine function; the message says what is known.

    Examples
    --------
    >>> CriticalType(int(classify((1.0, -1.0, -1.0, 0.5)))).name  # semi-inactive, f' v w < 0
    'LOCAL_MINIMUM'
    >>> CriticalType(int(classify((1.0, -1.0, 1.0, 0.5)))).name  # semi-inactive, f' v w > 0
    'SADDLE_A'
    """
    tol, (offset, slope) = default_tolerance(theta, tol), check_affine(target)
    types, flat = neuron_types(theta, interval=interval, tol=tol), is_flat(theta, tol=tol)
    degenerate = types == NeuronType.DEGENERATE
    loss, steepness, scale = risk_and_steepness(theta, interval=interval, target=target, leak=leak)
    lowest = level(types.shape[-1] // 2 * 2, interval=interval, target=target)
    cases = _leaky_cases if check_leak(leak) > 0 else _cases
    trapped, constant, zigzag = cases(split_parameters(theta), types, flat, check_interval(interval), slope, tol)
    middle = offset + slope * sum(check_interval(interval)) / 2
    centred = np.abs(split_parameters(theta).c - middle) <= tol * abs(slope) * np.ptp(check_interval(interval))
    return np.select(
        [
            steepness > tol * scale,
            loss <= tol * lowest,
            np.any(degenerate & ~flat, axis=-1),
            np.any(degenerate, axis=-1),
            trapped & centred,
            constant & centred,
            zigzag & (centred | (leak > 0)),
        ],
        [
            CriticalType.NOT_CRITICAL,
            CriticalType.GLOBAL_MINIMUM,
            CriticalType.NOT_DIFFERENTIABLE,
            CriticalType.SADDLE_DEGENERATE,
            CriticalType.LOCAL_MINIMUM,
            CriticalType.SADDLE_A,
            CriticalType.SADDLE_B,
        ],
        CriticalType.UNMATCHED,
    )


@arguments.closed_form(leak=arguments.single)
def escape_direction(
    theta: Theta, *, interval: Any = UNIT, target: Any = UNIT, leak: Any = 0.0, tol: float | None = None
) -> tuple[float, np.ndarray]:
    r"""Least eigenvalue of `modified_hessian` at a critical point, and a unit eigenvector.

    At a strict saddle ([C] Lemma 4.6) the value is negative, and L falls along the vector. A semi-inactive neuron
    counts only on the side on which it wakes up, so there the vector's sign matters. Its (w, b) block is a multiple of
    $(t, 1)(t, 1)^T$ and decoupled from all else, and $+(t, 1)$ wakes it; so each such neuron is looked at by itself.

    Examples
    --------
    >>> value, direction = escape_direction((1.0, -1.0, 1.0, 0.5))  # semi-inactive, breakpoint at 1
    >>> round(value, 12), direction.round(3).tolist()
    (-2.0, [0.707, 0.707, 0.0, 0.0])
    """
    H = modified_hessian(theta, interval=interval, target=target, leak=leak, tol=tol)
    w, b, _, _ = split_parameters(theta)
    N = w.size
    semi = neuron_types(theta, interval=interval, tol=tol) == NeuronType.SEMI_INACTIVE
    others = np.flatnonzero(~np.concatenate([semi, semi, semi, [False]]))
    values, vectors = np.linalg.eigh(H[np.ix_(others, others)])
    value, direction = values[0], np.zeros(3 * N + 1)
    direction[others] = vectors[:, 0]
    for j in np.flatnonzero(semi):
        if H[j, j] + H[N + j, N + j] < value:
            t = -b[j] / w[j]
            value, direction = H[j, j] + H[N + j, N + j], np.zeros(3 * N + 1)
            direction[[j, N + j]] = np.array([t, 1.0]) / np.hypot(t, 1.0)
    return float(value), direction


def _has_pinned(theta, interval, tol):
    """Whether some neuron is degenerate without being flat."""
    degenerate = neuron_types(theta, interval=interval, tol=tol) == NeuronType.DEGENERATE
    return np.any(degenerate & ~is_flat(theta, tol=tol), axis=-1)


def _typical_risk(interval, target):
    """The integral of f^2, by which a risk is judged to be zero."""
    squared = np.polynomial.Polynomial(check_target(target)) ** 2
    alpha, beta = check_interval(interval)
    primitive = squared.integ()
    return float(primitive(beta) - primitive(alpha))


def _cases(parameters, types, flat, interval, slope, tol):
    """The conditions of [C] Proposition 4.5 (ii), (iii a), (iii b) on the neurons, but for that on c."""
    w, _, v, _ = parameters
    semi = types == NeuronType.SEMI_INACTIVE
    falling = semi & ~flat & (slope * v * w < 0)
    idle = (types == NeuronType.INACTIVE) | semi | (flat & (types == NeuronType.SEMI_ACTIVE))
    trapped = np.all((types == NeuronType.INACTIVE) | falling, axis=-1)
    return trapped, np.all(idle, axis=-1), _is_zigzag(parameters, types, idle, interval, slope, tol)


def _leaky_cases(parameters, types, flat, interval, slope, tol):
    """The same for a leaky network, from [C] section 5 and the proof of Lemma 5.3; there are no local minima."""
    del slope
    still = flat & (np.abs(parameters.w) * np.ptp(interval) <= tol)
    constant = np.all(still, axis=-1)
    return np.zeros_like(constant), constant, np.any(types == NeuronType.TYPE_2, axis=-1)


def _is_zigzag(parameters, types, idle, interval, slope, tol):
    """Whether [C] Proposition 4.5 (iii b) holds for some n; `idle` says which neurons may be there besides."""
    (w, b, v, c), (alpha, beta) = parameters, interval
    inner = types == NeuronType.TYPE_2
    t = np.divide(-b, w, out=np.full(w.shape, alpha), where=inner)
    found = np.zeros(c.shape, bool)
    for n in range(2, w.shape[-1] + 1, 2):
        h = (beta - alpha) / (n + 1)
        i = np.rint((t - alpha) / h)
        placed = np.abs(t - alpha - i * h) <= tol * (beta - alpha)
        placed &= (i >= 1) & (i <= n) & (np.sign(w) == (-1.0) ** (i + 1))
        here = inner[..., None] & (i[..., None] == np.arange(1, n + 1))
        sums = np.sum(np.where(here, (v * w)[..., None], 0.0), axis=-2)
        right = np.all(np.abs(sums - 2 * slope / (n + 1)) <= tol * abs(slope), axis=-1)
        found = found | (np.all(idle | (inner & placed), axis=-1) & np.all(np.any(here, axis=-2), axis=-1) & right)
    return found
