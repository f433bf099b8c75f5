"""The Jacobian of a whole update map, parameters and momentum together, its multipliers, how they split space."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Complex, Float

from gdstab import _arguments as arguments
from gdstab import curvature
from gdstab._clocks import whole
from gdstab._contract import entry
from gdstab._staging import staged
from gdstab._types import LossFn, Scalar, State
from gdstab._validate import as_state, check_autonomous, check_positive
from gdstab.stability.units import part_units


@entry
@arguments.closed_form(loss=arguments.function, step_size=arguments.positive, dense_limit=arguments.count)
def jacobian(
    rule, loss: LossFn, state: State, step_size: Scalar | float, *, dense_limit: int = curvature.DENSE_LIMIT
) -> Float[Array, "n n"]:
    r"""Jacobian of the whole update map at `state`, in the order of the state's leaves: parameters, then momentum.

    Integer leaves are left out: $n$ counts the floating-point entries. A step counter is held at its limit, where its
    influence has faded (bias correction). Where it does not fade (accumulated gradients, cyclic rules) it is a phase,
    and the map is that of a whole round of it, from the phase of `state` on.

    Raises
    ------
    ValueError
        If the rule follows a schedule or its integers neither fade nor come round, or the state has no floating-point
        leaf, or more than `dense_limit` of their entries. Outside of a compilation also if the map jumps, has a kink or
        an infinite derivative at `state`.
    """
    check_autonomous(rule, "fixed points or multipliers")
    state = as_state(state)
    moving, fixed = eqx.partition(state, eqx.is_inexact_array)
    if not jax.tree.leaves(moving):
        raise ValueError("expected a state with floating-point arrays, got none; pass `rule.init(theta, step_size)`")
    rule = whole(rule, loss, state)
    flat, unravel = ravel_pytree(moving)
    if flat.size > dense_limit:
        raise ValueError(
            f"expected at most {dense_limit} floating-point entries in the state, got {flat.size}: all complex "
            "multipliers would need a dense matrix. For gradient descent use `curvature.extreme_eigenvalues`, for "
            "other rules the leading exponents of `lyapunov`, or raise `dense_limit`"
        )

    def step(x, step_size):
        moved = rule.step(loss, eqx.combine(unravel(x), fixed), step_size)
        return ravel_pytree(eqx.filter(moved, jax.tree.map(eqx.is_inexact_array, state)))[0]

    def slope(x, step_size):
        with jax.default_matmul_precision("highest"):
            return jax.jacfwd(step)(x, step_size)

    matrix = staged(slope, flat, step_size)
    if not isinstance(matrix, jax.core.Tracer):
        if not np.isfinite(matrix).all():
            raise ValueError(SINGULAR)
        if is_rough(lambda x: step(x, step_size), flat, matrix, coarseness(state)):
            raise ValueError(ROUGH)
    return matrix


def coarseness(state: State) -> float:
    """The rounding of the coarsest floating-point leaf of a state: some rules gather in single precision."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)))


def is_rough(
    step: Callable, flat: Float[Array, " n"], matrix, eps: float, direction=None, *, size=None
) -> Bool[Array, ""]:
    r"""Whether a map does not do near a point what its derivative says, or has none there.

    Automatic differentiation gives a matrix at jumps and kinks all the same. The error of a linear map, over the
    distance, shrinks with the distance; that of a jump grows, that of a kink stays. It is looked at on both sides, in a
    direction in general position unless another is given, at distances that `eps`, the rounding of the map, and the
    size of what is near by set, by default that of the point. Not finite counts as rough.
    """
    dtype, reach = flat.dtype, jnp.linalg.norm(flat) if size is None else jnp.asarray(size, flat.dtype)
    reach = jnp.where(reach > 0, reach, 1)
    size = jnp.linalg.norm(matrix)
    if direction is None:
        direction = np.cos(np.arange(1, flat.size + 1) * 2.4)  # no symmetry, no zero
    direction = jnp.asarray(direction, dtype)
    direction = direction / jnp.linalg.norm(direction)
    # A map that stretches is linear only over so much shorter distances.
    far = 16 * eps**0.5 * reach / jnp.maximum(size / 10, 1)
    points = flat[None] + far * jnp.asarray([[0], [1 / 16], [-1 / 16], [1], [-1]], dtype) * direction[None]
    with jax.default_matmul_precision("highest"):
        images = staged(lambda points: lax.map(step, points), points)
        away = points[1:] - flat[None]
        errors = images[1:] - images[:1] - away @ matrix.T
    near, nearer, distant, beyond = jnp.linalg.norm(errors, axis=1) / jnp.linalg.norm(away, axis=1)
    near, distant = jnp.maximum(near, nearer), jnp.maximum(distant, beyond)
    turn = jnp.linalg.norm(matrix - jnp.eye(flat.size, dtype=dtype))
    floor = jnp.minimum(1e-2 * size, jnp.maximum(1e-2 * turn, 100 * eps**0.5 * jnp.maximum(size, 1)))
    smooth = (near <= distant / 2) | (near <= floor)
    return ~(smooth & jnp.all(jnp.isfinite(matrix)))


ROUGH = (
    "the update map jumps or has a kink at this point (sign descent, Lion, normalised descent and Polyak's step do at "
    "every critical point, line searches where they begin to shorten the step), so there are no multipliers; study "
    "such a rule by its orbits"
)
SINGULAR = (
    "the update map is singular at this point: its Jacobian is infinite. Adaptive rules divide by the square root of "
    "their second moment, zero at a critical point: hold it by `updates.frozen(rule, nu)`, with `nu` from an orbit "
    "(`updates.second_moment`). Normalised descent divides by the norm of the gradient and has no multipliers; study "
    "it by its orbits"
)


@entry
@arguments.closed_form(loss=arguments.function, step_size=arguments.positive, dense_limit=arguments.count)
def multipliers(
    rule, loss: LossFn, state: State, step_size: Scalar | float, *, dense_limit: int = curvature.DENSE_LIMIT
) -> Complex[Array, " n"]:
    r"""Eigenvalues of the Jacobian of the whole update map at `state`, largest modulus first.

    For gradient descent these are $1 - \eta \lambda_i(\nabla^2 L)$; for heavy ball with momentum $\beta$ the roots of
    $\mu^2 - (1 + \beta - \eta\lambda_i)\mu + \beta$ (Polyak 1964). A fixed point is linearly stable if all lie inside
    the unit circle. Defective multipliers are only accurate to $\sqrt\epsilon$. They say something of a fixed point
    only: `extend` builds the state above a critical point, and refuses where there is none.

    Parameters
    ----------
    rule
        Anything with `step(loss, state, step_size) -> state`, such as an `updates.UpdateRule`.
    state
        Arrays. Integer ones are left out, as `jacobian` says: $n$ counts the floating-point entries. Of a rule with a
        phase these are the multipliers of a whole round.

    Raises
    ------
    ValueError
        As `jacobian`.
    """
    matrix = jacobian(rule, loss, state, step_size, dense_limit=dense_limit)
    if hasattr(rule, "theta"):  # eigenvalues of a matrix with entries of all sizes are inaccurate
        units = part_units(matrix, eqx.filter(state, eqx.is_inexact_array), rule.theta(state))
        matrix = matrix * (units[None] / units[:, None])
    return staged(_sorted_eigenvalues, matrix)


@entry
@arguments.closed_form(loss=arguments.function, step_size=arguments.positive)
def spectral_radius(rule, loss: LossFn, state: State, step_size: Scalar | float) -> Scalar:
    """The largest modulus of the `multipliers`; in an isolated fixed point, the rate at which nearby orbits converge.

    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> print(spectral_radius(gradient_descent(), lambda theta: jnp.sum(theta**2), jnp.ones(2), 0.75))
    0.5
    """
    return jnp.abs(multipliers(rule, loss, state, step_size)[0])


class Splitting(NamedTuple):
    r"""$\mathbb{R}^n = E^{cs} \oplus E^u$ for a matrix, with orthonormal bases of both, as columns."""

    stable_basis: np.ndarray  # [n, s]
    unstable_basis: np.ndarray  # [n, u]
    stable: np.ndarray  # [s, s], the matrix on E^cs in that basis
    unstable: np.ndarray  # [u, u]
    multipliers: np.ndarray  # [n], those of E^u first, by modulus, largest first


@arguments.closed_form()
def splitting(matrix, *, tol: float | None = None) -> Splitting:
    r"""Split space by the eigenvalues of a matrix: $|\mu| \le 1 + \mathrm{tol}$, and the rest.

    Symmetric matrices give eigenvectors, each space ordered by falling modulus; others Schur vectors.

    Parameters
    ----------
    matrix
        Square, such as `stability.jacobian` at a fixed point.
    tol
        What counts as modulus 1; $\sqrt\epsilon$ by default.

    Examples
    --------
    >>> found = splitting([[0.5, 0.0], [0.0, 2.0]])
    >>> found.multipliers.tolist(), abs(found.unstable_basis).tolist()
    ([2.0, 0.5], [[0.0], [1.0]])
    """
    given = np.asarray(matrix)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not np.isfinite(given).all():
        raise ValueError(f"expected a square matrix of finite numbers, got shape {given.shape}; is z a fixed point?")
    eps = float(np.finfo(np.result_type(given, np.float32)).eps)
    given, edge = given.astype(float), 1 + (eps**0.5 if tol is None else check_positive(tol, "tol"))
    if np.abs(given - given.T).max(initial=0) <= 8 * eps * np.abs(given).max(initial=0):
        values, vectors = np.linalg.eigh((given + given.T) / 2)
        order = np.argsort(-np.abs(values), kind="stable")
        values, vectors = values[order], vectors[:, order]
        out = np.abs(values) > edge
        bases, blocks = (vectors[:, ~out], vectors[:, out]), (np.diag(values[~out]), np.diag(values[out]))
    else:
        found = [
            scipy.linalg.schur(given, "real", sort=sort)
            for sort in (lambda x, y: math.hypot(x, y) <= edge, lambda x, y: math.hypot(x, y) > edge)
        ]
        bases = [vectors[:, :count] for _, vectors, count in found]
        blocks = [form[:count, :count] for form, _, count in found]
        values = np.linalg.eigvals(given)
        values = values[np.argsort(-np.abs(values), kind="stable")]
    return Splitting(bases[0], bases[1], blocks[0], blocks[1], values)


def _sorted_eigenvalues(matrix):
    # General eigenvalues, since the Jacobian of momentum is not symmetric. TPUs have none: they go through the host.
    values = lax.platform_dependent(matrix, tpu=_host_eigenvalues, default=jnp.linalg.eigvals)
    return values[jnp.argsort(-jnp.abs(values))]


def _host_eigenvalues(matrix):
    dtype = np.result_type(matrix.dtype, np.complex64)
    shape = jax.ShapeDtypeStruct(matrix.shape[:-1], dtype)

    def call(values):
        return np.linalg.eigvals(values).astype(dtype)

    return jax.pure_callback(call, shape, matrix, vmap_method="broadcast_all")
