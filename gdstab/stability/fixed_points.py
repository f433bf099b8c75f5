r"""Fixed points of a whole update map above critical points of the loss: parameters, and momentum at rest."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab._clocks import clock_of, whole
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._types import LossFn, Scalar, State, Theta
from gdstab._validate import check_autonomous, check_loss, check_positive
from gdstab.stability.maps import ROUGH, SINGULAR, coarseness, is_rough, jacobian
from gdstab.stability.units import part_units


class FixedPoint(NamedTuple):
    """A state that one update leaves where it is."""

    state: State
    theta: Theta
    residual: float  # length of what one update still moves


@entry(host=True)
@arguments.closed_form(loss=arguments.function, theta=arguments.finite_parameters)
def extend(rule, loss: LossFn, theta: Theta, step_size: float, *, tol: float | None = None) -> State:
    r"""The fixed point of the whole map above the critical point `theta`: momentum at rest, counters at their limit.

    The state is the one that `rule.init` makes; step counters are set so high that bias correction has faded. It is
    checked that one update leaves it where it is, and that the map has a derivative there; where an integer is a phase
    (accumulated gradients) this is the map of a whole round of it, as in `jacobian`. Runs on the host.

    Parameters
    ----------
    rule
        An `updates.UpdateRule`. Adaptive rules have $\nu = 0$ at a critical point, where their step has no derivative:
        pass `updates.frozen(rule, nu)`, with the second moment of an orbit.
    tol
        How far one update may move, relative to $\|\theta\|$; $\sqrt\epsilon$ by default.

    Raises
    ------
    ValueError
        If the rule follows a schedule, moves on at `theta` (this is no critical point, or weight decay moves it: see
        `fixed_point`), or has no derivative there (sign descent, Lion, normalised descent; adaptive rules at
        $\nu = 0$).

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> from gdstab.updates import from_optax
    >>> rule = from_optax(lambda s: optax.sgd(s, momentum=0.9))
    >>> state = extend(rule, lambda theta: jnp.sum(theta**2), jnp.zeros(2), 0.1)
    >>> state[1][0].trace.tolist()
    [0.0, 0.0]
    """
    theta = _check(rule, loss, theta, step_size)
    eta, state = _at_rest(rule, loss, theta, step_size)
    check_rests(rule, loss, state, eta, tol=tol)
    _refuse_rough(whole(rule, loss, state), loss, state, eta)
    return state


def check_rests(rule, loss: LossFn, state: State, step_size, *, tol: float | None = None) -> State:
    """The state, refused unless an update (of a rule with a phase, a whole round of them) leaves it where it is."""
    rule = whole(rule, loss, state)
    flat = _flat(state)
    tol = float(np.finfo(flat.dtype).eps) ** 0.5 if tol is None else check_positive(tol, "tol")
    eta = jnp.asarray(step_size, flat.dtype)
    moves, size = _moved(rule, loss, state, eta, flat)
    if not moves <= tol * size:
        raise ValueError(
            f"expected a point that one update leaves where it is, got one of size {size:.3g} that it moves by "
            f"{moves:.3g}: theta is no critical point of the loss (or not to {tol:.1g} of its size: raise `tol`), "
            "weight decay moves it (find it by `fixed_point`), or the rule never rests (normalised steps)"
        )
    return state


@entry(host=True)
@arguments.closed_form(loss=arguments.function, guess=arguments.finite_parameters)
def fixed_point(rule, loss: LossFn, guess: Theta, step_size: float, *, tol: float | None = None) -> FixedPoint:
    r"""The fixed point of the whole map near `guess`, parameters and momentum together; runs on the host.

    By Levenberg's and Marquardt's method (MINPACK's, through `scipy.optimize.root`), so that a manifold of fixed points
    does no harm, then Newton steps of least length. With weight decay fixed points are no critical points of the loss;
    saddles are found as well as minima.

    Raises
    ------
    ValueError
        As `extend`; and if no fixed point is found to within `tol` (relative to the larger of $\|\theta\|$ and that of
        the guess, by default $\epsilon^{3/4}$).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import named
    >>> decayed = named("heavy-ball", weight_decay=1.0)
    >>> found = fixed_point(decayed, lambda theta: jnp.sum((theta - 3) ** 2), jnp.ones(1), 0.1)
    >>> round(float(found.theta[0]), 6)  # 2 (theta - 3) + theta = 0
    2.0
    """
    guess = _check(rule, loss, guess, step_size)
    eta, state = _at_rest(rule, loss, guess, step_size)
    rule = whole(rule, loss, state)
    x = start = _flat(state)
    eps = float(np.finfo(x.dtype).eps)
    tol = eps**0.75 if tol is None else check_positive(tol, "tol")

    def moves(x):
        return np.asarray(_displacement(rule, loss, state, eta, jnp.asarray(x, state_dtype)), float)

    def slopes(x):
        there = _combined(state, jnp.asarray(x, state_dtype))
        return np.asarray(slope(rule, loss, there, eta), float) - np.eye(x.size)

    state_dtype = x.dtype
    x = scipy.optimize.root(moves, np.asarray(x, float), jac=slopes, method="lm", options={"xtol": eps, "ftol": eps}).x
    for _ in range(3):
        step = np.linalg.lstsq(slopes(x), -moves(x), rcond=eps**0.5)[0]
        if np.isfinite(step).all() and np.linalg.norm(moves(x + step)) < np.linalg.norm(moves(x)):
            x = x + step
    residual, size = _moved(rule, loss, state, eta, jnp.asarray(x, state_dtype))
    if not residual <= tol * max(size, float(np.linalg.norm(np.asarray(start)))):
        raise ValueError(
            f"found no fixed point near the guess: the best one is still moved by {residual:.3g}; start nearer to one, "
            "raise `tol`, or does the rule never rest (sign descent, Lion, normalised steps)?"
        )
    flat = jnp.asarray(x, state_dtype)
    found = _combined(state, flat)
    _refuse_rough(rule, loss, found, eta)
    return FixedPoint(found, rule.theta(found), residual)


_MOMENTS = {"nu", "sum_of_squares"}


def _check(rule, loss, theta, step_size) -> Theta:
    step_size = check_positive(step_size, "step_size")
    check_autonomous(rule, "fixed points")
    return check_loss(loss, theta)


def _at_rest(rule, loss, theta, step_size):
    """The step size in the dtype of the run, and the state with momentum zero and counters at their limit."""
    eta = jnp.asarray(step_size, jnp.result_type(*jax.tree.leaves(theta)))
    state = rule.init(theta, eta)
    return eta, clock_of(rule, loss, state).late(state)


def _flat(state) -> Float[Array, " n"]:
    return ravel_pytree(eqx.filter(state, eqx.is_inexact_array))[0]


def _combined(state, flat):
    moving, fixed = eqx.partition(state, eqx.is_inexact_array)
    return eqx.combine(ravel_pytree(moving)[1](flat), fixed)


@jit
def _displacement(rule, loss, state, eta, flat):
    with jax.default_matmul_precision("highest"):
        return _flat(rule.step(loss, _combined(state, flat), eta)) - flat


@jit
def slope(rule, loss: LossFn, state: State, eta: Scalar) -> Float[Array, "n n"]:
    """The Jacobian of the map at a state, compiled."""
    return jacobian(rule, loss, state, eta)


def _moved(rule, loss, state, eta, flat) -> tuple[float, float]:
    """How far one update moves a state, and its size, all parts of it in units in which they act alike."""
    floating = eqx.filter(_combined(state, flat), eqx.is_inexact_array)
    units = np.asarray(part_units(slope(rule, loss, _combined(state, flat), eta), floating, rule.theta(state)), float)
    moves = np.asarray(_displacement(rule, loss, state, eta, flat), float)
    return float(np.linalg.norm(moves / units)), float(np.linalg.norm(np.asarray(flat, float) / units))


def _has_zero_moment(state) -> bool:
    """Whether a second moment, as optax names them, is zero in some entry."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    moments = [leaf for path, leaf in leaves if {getattr(key, "name", None) for key in path} & _MOMENTS]
    return any(bool(jnp.any(leaf == 0)) for leaf in moments)


def _refuse_rough(rule, loss, state, eta) -> None:
    """Where the map has no derivative automatic differentiation gives one all the same, or NaN."""
    flat = _flat(state)
    if not np.isfinite(np.asarray(flat)).all():
        raise ValueError(
            "expected a state of finite numbers, got one with inf or NaN, which such a rule begins with (line searches "
            "do): it has no multipliers; study it by its orbits"
        )
    matrix = slope(rule, loss, state, eta)
    # Where a point is critical only to rounding, what should be infinite is merely huge.
    huge = np.abs(matrix).max() > float(np.finfo(flat.dtype).eps) ** -0.25 and _has_zero_moment(state)
    if huge:
        raise ValueError(SINGULAR)
    check_smooth(rule, loss, state, eta, matrix)


def check_smooth(rule, loss, state, eta, matrix, direction=None) -> None:
    """Refuse a state where the map has no derivative, by what it does near by; in a direction, if one is given."""
    if not np.isfinite(matrix).all():
        raise ValueError(SINGULAR)
    if _is_rough(rule, loss, state, eta, matrix, direction):
        raise ValueError(ROUGH)


@jit
def _is_rough(rule, loss, state, eta, matrix, direction):
    def step(x):
        return _flat(rule.step(loss, _combined(state, x), eta))

    return is_rough(step, _flat(state), matrix, coarseness(state), direction)
