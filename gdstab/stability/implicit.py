"""Where an orbit ends, as a function of what its loss depends on: implicit differentiation."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from gdstab import curvature
from gdstab._numerics import rank_tolerance
from gdstab._types import LossFn, Theta
from gdstab._validate import check_loss, is_concrete


def critical_point(loss: LossFn, theta: Theta) -> Theta:
    r"""The isolated critical point that an orbit has ended at, differentiable in whatever the loss depends on.

    One step of Newton's method from `theta`, of which nothing is differentiated, nor of how the orbit came there; the
    derivatives, of any order, are those of the root of the gradient: with $\nabla L(\theta^*(p); p) = 0$,
    $$\frac{d\theta^*}{dp} = -\left(\nabla^2 L\right)^{-1} \frac{\partial}{\partial p} \nabla L .$$
    It can be jitted, vmapped and differentiated forward and backward, and composed with what follows: the sharpness of
    the end point and so its threshold $2 / \lambda_{\max}$ are differentiable functions of $p$.

    Parameters
    ----------
    loss
        Which depends on $p$ by what it closes over, or by its arrays.
    theta
        The end point, such as `settle(...).theta`; its own derivative is taken for 0.

    Returns
    -------
    The point, to second order in the distance that is left; NaN under a transformation where it is not isolated.

    Raises
    ------
    ValueError
        If the Hessian is singular, as at minima that form a manifold: where the orbit ends then depends on its start.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> def end(p):  # minimum of x^2 - p x, at p / 2
    ...     return critical_point(lambda x: x**2 - p * x, jnp.array(1.0))
    >>> float(end(2.0)), float(jax.grad(end)(2.0))
    (1.0, 0.5)
    """
    theta = check_loss(loss, theta)
    flat, unravel = ravel_pytree(jax.tree.map(lax.stop_gradient, theta))
    hessian = lax.stop_gradient(curvature.hessian(lambda x: loss(unravel(x)), flat))
    sizes = jnp.abs(curvature.matrix_eigenvalues(hessian))
    isolated = jnp.min(sizes) > rank_tolerance(hessian.shape, hessian.dtype) * jnp.max(sizes)
    if is_concrete(isolated) and not bool(isolated):
        raise ValueError(
            "expected an isolated critical point, got one with a singular Hessian: where an orbit ends on a manifold "
            "of minima depends on its start, so differentiate `orbits.rollout` instead"
        )

    def newton(gradient, x):
        with jax.default_matmul_precision("highest"):
            return jnp.where(isolated, x - jnp.linalg.solve(hessian, gradient(x)), jnp.nan)

    return unravel(lax.custom_root(jax.grad(lambda x: loss(unravel(x))), flat, newton, _solve))


def _solve(linear, y):
    """Where a linear map of vectors takes the value y."""
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.solve(jax.jacfwd(linear)(y), y)
