"""The Jacobian of a whole update map, parameters and momentum together, and its multipliers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float

from gdstab import _arguments as arguments
from gdstab import curvature
from gdstab._staging import staged
from gdstab._types import LossFn, Scalar, State
from gdstab._validate import as_state
from gdstab.stability.units import part_units


def check_autonomous(rule) -> None:
    """A rule that follows a schedule is not one map, and nothing can be linearised about it."""
    if not getattr(rule, "autonomous", True):
        raise ValueError(
            "expected a rule that is one map, got one with a schedule, which has neither fixed points nor multipliers; "
            "analyse the optimiser without its schedule, at one step size"
        )


@arguments.closed_form(loss=arguments.function, step_size=arguments.positive, dense_limit=arguments.count)
def jacobian(
    rule, loss: LossFn, state: State, step_size: Scalar | float, *, dense_limit: int = curvature.DENSE_LIMIT
) -> Float[Array, "n n"]:
    r"""Jacobian of the whole update map at `state`, in the order of the state's leaves: parameters, then momentum.

    Integer leaves (step counters) are held fixed and left out: $n$ counts the floating-point entries.

    Raises
    ------
    ValueError
        If the rule follows a schedule, or the state has no floating-point leaf, or more than `dense_limit` of their
        entries.
    """
    check_autonomous(rule)
    state = as_state(state)
    moving, fixed = eqx.partition(state, eqx.is_inexact_array)
    if not jax.tree.leaves(moving):
        raise ValueError("expected a state with floating-point arrays, got none; pass `rule.init(theta, step_size)`")
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

    return staged(slope, flat, step_size)


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
        Arrays. Integer ones (step counters) are held fixed and left out: $n$ counts the floating-point entries.

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
