r"""Euler's method against the exact solution, and descent against flow: bounds over time, and steps small enough.

Everything that depends on time is constant on the intervals of a grid $0 = t_0 < \dots < t_N$; the integrals are then
exact, and the bounds are rigorous if the values bound what they stand for on the whole of each interval. Sums are kept
as logarithms: nothing overflows before the answer does.

Source: [D] Elkabetz and Cohen, sections 2 and 3. Theorem 2 is Theorem 10.6 of Hairer, Norsett and Wanner (1993).
"""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab._validate import check_positive

Times = Float[Array | np.ndarray, " times"]
OnIntervals = Float[Array | np.ndarray, "*batch intervals"]

_VAST = 1e200
"""Stands for infinity in exponents, which are subtracted from each other."""


@arguments.closed_form(times=arguments.points)
def exponent(times: Times, growth: OnIntervals) -> Float[np.ndarray, "*batch times"]:
    r"""$\mu(t) = \int_0^t m(t') \, dt'$ at the times of the grid, `growth` being m, [..., intervals].

    Examples
    --------
    >>> exponent(np.array([0.0, 1.0, 3.0]), np.array([2.0, -1.0])).tolist()
    [0.0, 2.0, 0.0]
    """
    lengths, growth = _intervals(times, growth)
    return np.concatenate([np.zeros((*growth.shape[:-1], 1)), np.cumsum(growth * lengths, axis=-1)], axis=-1)


@arguments.closed_form(times=arguments.points, defect=arguments.real, initial=arguments.real)
def euler_bound(
    times: Times, growth: OnIntervals, defect: ArrayLike, initial: ArrayLike = 0.0
) -> Float[np.ndarray, "*batch times"]:
    r"""$e^{\mu(t)} \big( r + \int_0^t e^{-\mu(t')} \delta(t') \, dt' \big)$ at the times of the grid ([D] Theorem 2).

    It bounds the distance of the polygon through the iterates of Euler's method from the exact solution.

    Parameters
    ----------
    times
        The grid, ascending from 0.
    growth
        m: no less than the largest eigenvalue of the symmetric part of the field's Jacobian on the segment between
        solution and polygon; for gradient flow no less than $-\lambda_{\min}(\nabla^2 L)$. [..., intervals]
    defect
        $\delta \ge 0$: no less than the distance of the polygon's velocity from the field; [..., intervals] or one
        number.
    initial
        r: the distance at time 0; [...] or one number.

    Raises
    ------
    ValueError
        If the times do not ascend from 0, the intervals do not fit them, or a defect is negative.

    Examples
    --------
    >>> times = np.linspace(0.0, 2.0, 5)
    >>> bool(np.allclose(euler_bound(times, np.ones(4), 3.0), 3 * np.expm1(times)))
    True
    """
    with np.errstate(over="ignore"):
        return np.exp(_log_bound(times, growth, defect, initial))


@arguments.closed_form(
    times=arguments.points, smoothness=arguments.single, gradient=arguments.single, initial=arguments.nonnegative
)
def descent_bound(
    times: Times,
    growth: OnIntervals,
    smoothness: float,
    gradient: float,
    radius: float,
    step_size: float,
    initial: float = 0.0,
) -> Float[np.ndarray, "*batch times"]:
    r"""`euler_bound` with the defect $\beta\gamma\eta$ that descent has in a tube around the flow ([D] Theorem 3).

    `growth`, `smoothness` ($\beta$) and `gradient` ($\gamma$) bound $-\lambda_{\min}$, the spectral norm of the Hessian
    and the norm of the gradient within `radius` ($\epsilon$) of the flow. Where the bound has passed the radius nothing
    is known any more: from there on it is inf.

    Examples
    --------
    >>> descent_bound(np.array([0.0, 1.0, 2.0]), np.zeros(2), 2.0, 1.0, 0.1, 0.03).tolist()
    [0.0, 0.06, inf]
    """
    step_size = check_positive(step_size, "step_size")
    bound = euler_bound(times, growth, _strength(smoothness, gradient) * step_size, initial)
    within = np.logical_and.accumulate(bound <= check_positive(radius, "radius"), axis=-1)
    return np.where(within, bound, np.inf)


@arguments.closed_form(
    times=arguments.points, smoothness=arguments.single, gradient=arguments.single, initial=arguments.nonnegative
)
def max_step(
    times: Times, growth: OnIntervals, smoothness: float, gradient: float, radius: float, initial: float = 0.0
) -> Float[np.ndarray, "*batch"]:
    r"""The step below which descent stays within `radius` of the flow until the last time ([D] Theorem 3, corrected).

    $$\inf_{0 < t \le \tilde t} \frac{\epsilon - e^{\mu(t)} r}
      {\beta \gamma \int_0^t e^{\int_{t'}^{t} m(t'') dt''} dt'}$$

    The inner integral ends at t; printed is $\tilde t$, with which the statement is false where m is negative at the
    end. On an interval where m is constant the quotient is monotone, so the infimum lies on the grid. 0 if no step
    qualifies, inf if the gradient or the Hessian vanishes in the tube. Arguments as in `descent_bound`.

    Examples
    --------
    >>> round(float(max_step(np.array([0.0, 1.0]), np.array([1.0]), 2.0, 5.0, 0.1)), 6)
    0.00582
    """
    radius, strength = check_positive(radius, "radius"), _strength(smoothness, gradient)
    if _at_least_zero(initial, "initial") >= radius:
        return np.zeros(np.shape(growth)[:-1])
    with np.errstate(over="ignore", divide="ignore"):
        carried = initial * np.exp(exponent(times, growth)[..., 1:]) if initial else 0.0
        spread = _log_bound(times, growth, 1.0, 0.0)[..., 1:]
        limits = np.where(carried < radius, np.float64(radius - carried) / strength * np.exp(-spread), 0.0)
        return np.asarray(np.maximum(np.min(limits, axis=-1), 0.0))


@arguments.closed_form(initial_loss=arguments.single, least_eigenvalue=arguments.single, initial=arguments.nonnegative)
def max_step_smooth(
    smoothness: float, initial_loss: float, least_eigenvalue: float, radius: float, time: float, initial: float = 0.0
) -> float:
    r"""The step of `max_step` from global constants: a loss $L \ge 0$ that is $\beta$-smooth ([D] Corollary 4).

    With $c = (\sqrt{2 \beta^3 L(\theta(0))} + \beta^2 \epsilon)^{-1}$ and m minus the least eigenvalue of the Hessian
    over the whole space: $c (\epsilon - r) |m|$ for m < 0, $c (\epsilon - r) / \tilde t$ for m = 0, and
    $c (\epsilon - r e^{m \tilde t}) \, m / (e^{m \tilde t} - 1)$ for m > 0. 0 if no step qualifies.

    Examples
    --------
    >>> max_step_smooth(1.0, 0.5, 0.0, 1.0, 2.0)
    0.25
    """
    smoothness, radius = check_positive(smoothness, "smoothness"), check_positive(radius, "radius")
    time, m, initial = check_positive(time, "time"), -float(least_eigenvalue), _at_least_zero(initial, "initial")
    if not (abs(m) <= smoothness and 0 <= initial_loss < np.inf):
        raise ValueError(
            f"expected a loss >= 0 whose Hessian lies between -{smoothness:g} and {smoothness:g}, got a loss of "
            f"{initial_loss:g} and a least eigenvalue of {least_eigenvalue:g}; raise the smoothness, shift the loss"
        )
    c = 1 / (np.sqrt(2 * smoothness**3 * initial_loss) + smoothness**2 * radius)
    with np.errstate(over="ignore"):
        if m < 0:
            step = (radius - initial) * -m
        elif m == 0:
            step = (radius - initial) / time
        else:
            # m / (e^(m t) - 1), which does not overflow
            step = (radius * np.exp(-m * time) - initial) * m / -np.expm1(-m * time)
    return float(max(c * step, 0.0))


def _log_bound(times, growth, defect, initial):
    """The logarithm of `euler_bound`."""
    lengths, growth = _intervals(times, growth)
    defect, initial = np.asarray(defect, float), np.asarray(initial, float)
    if (defect < 0).any() or (initial < 0).any():
        raise ValueError("expected a defect and an initial distance of at least 0, got a negative one; they are norms")
    mu, turn = exponent(times, growth), growth * lengths
    size = np.abs(turn)
    share = np.where(size > 0, -np.expm1(-size) / np.where(size > 0, size, 1.0), 1.0)
    with np.errstate(divide="ignore"):
        # of the integral of exp(m (end - t')) over one interval
        grown = np.log(lengths) + np.maximum(turn, 0.0) + np.log(share)
        added = np.log(defect) + grown - mu[..., 1:]
        begin = np.broadcast_to(np.log(initial)[..., None], (*added.shape[:-1], 1))
    return mu + np.logaddexp.accumulate(np.concatenate([begin, added], axis=-1), axis=-1)


def _intervals(times, growth):
    """The lengths of the intervals, and the values on them, as arrays of double precision."""
    times, growth = np.asarray(times, np.float64), np.asarray(growth, np.float64)
    if np.isnan(growth).any():
        raise ValueError("growth: expected numbers, got NaN; put inf where it is not known")
    growth = np.clip(growth, -_VAST, _VAST)
    lengths = np.diff(times)
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or not (lengths > 0).all():
        raise ValueError(f"times: expected at least two that ascend from 0, got shape {times.shape}; sort them")
    if growth.shape[-1:] != lengths.shape:
        raise ValueError(
            f"growth: expected one value for each of the {len(lengths)} intervals, got shape {growth.shape}; "
            "from values at the times make them by `interval_maxima`"
        )
    return lengths, growth


def _strength(smoothness, gradient):
    return _at_least_zero(smoothness, "smoothness") * _at_least_zero(gradient, "gradient")


def _at_least_zero(value, name):
    value = float(value)
    if not 0 <= value < np.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}; it is a norm")
    return value
