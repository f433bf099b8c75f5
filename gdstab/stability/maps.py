"""The Jacobian of a whole update map, parameters and momentum together, and its multipliers."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Complex, Float

from gdstab import _arguments as arguments
from gdstab import curvature
from gdstab._clocks import whole
from gdstab._staging import staged
from gdstab._types import LossFn, Scalar, State
from gdstab._validate import as_state, check_autonomous
from gdstab.stability.units import part_units


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


@arguments.closed_form(loss=arguments.function, step_size=arguments.positive)
def spectral_radius(rule, loss: LossFn, state: State, step_size: Scalar | float) -> Scalar:
    """The largest modulus of the `multipliers`; in an isolated fixed point, the rate at which nearby orbits converge.

    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> print(spectral_radius(gradient_descent(), lambda theta: jnp.sum(theta**2), jnp.ones(2), 0.75))
    0.5
    """
    return jnp.abs(multipliers(rule, loss, state, step_size)[0])


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
