r"""Symmetric matrices by their products with vectors: the Hessian, and its relatives on a network.

A loss $L(\theta) = \ell(z)$ of outputs $z = h(\theta)$ with Jacobian $J$ has
$$\nabla^2 L = J^T \nabla^2\ell\, J + \sum_i \partial_i \ell \, \nabla^2 h_i ,$$
the first term of which is the matrix of Gauss and Newton. Such a loss says `outputs(theta)` and `of_outputs(z)`, as
`losses.NetworkRisk` does.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdstab._staging import staged
from gdstab._types import LossFn, Point, Theta
from gdstab._validate import check_loss
from gdstab.curvature.exact import flatten, hvp


class Operator(NamedTuple):
    r"""A symmetric matrix $A$ of `size` rows, by its product with a flat vector.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> curve = hessian_operator(lambda t: t[0] ** 2 * t[1], jnp.array([1.0, 3.0]))
    >>> curve(jnp.array([1.0, 0.0])).tolist(), curve.matrix().tolist()
    ([6.0, 2.0], [[6.0, 2.0], [2.0, 0.0]])
    """

    product: Callable[[Point], Point]
    like: Point
    """A vector of the shape and dtype that it takes."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.like.size

    def __call__(self, vector: Point) -> Point:
        """$A v$, at the highest precision of products of matrices."""
        return staged(self._push, jnp.asarray(vector, self.like.dtype))

    def matrix(self) -> Float[Array, "n n"]:
        """All of it, symmetric to the last bit: `size` products at once, so for small ones."""
        whole = staged(jax.vmap(self._push), jnp.eye(self.size, dtype=self.like.dtype))
        return (whole + whole.T) / 2

    def _push(self, vector):
        with jax.default_matmul_precision("highest"):
            return self.product(vector)


def hessian_operator(loss: LossFn, theta: Theta) -> Operator:
    r"""$\nabla^2 L(\theta)$, in the order of `ravel_pytree(theta)`."""
    flat_loss, flat = flatten(loss, theta)
    return Operator(lambda v: hvp(flat_loss, flat, v), flat)


def gauss_newton(loss, theta: Theta) -> Operator:
    r"""$J^T \nabla^2 \ell(z)\, J$: the Hessian without the curvature of the network itself.

    It is positive semi-definite where $\ell$ is convex, and the Hessian where the outputs are linear in the parameters
    or the gradient in the outputs vanishes. For "mse" and "cross_entropy" it is the Fisher matrix of the model that
    the loss is the negative log-likelihood of, a normal one of variance 1 and a categorical one: the outputs are
    natural parameters (Martens 2020, JMLR 21, 146, section 9.2).

    Parameters
    ----------
    loss
        With `outputs(theta) -> z` and `of_outputs(z) -> value`, such as `losses.NetworkRisk`.

    Raises
    ------
    ValueError
        If the loss has no outputs, or is not what `of_outputs` makes of them.
    """
    outputs, flat = _outputs(loss, theta)

    def product(v):
        z, Jv = jax.jvp(outputs, (flat,), (v,))
        bent = jax.jvp(jax.grad(loss.of_outputs), (z,), (Jv,))[1]
        return jax.vjp(outputs, flat)[1](bent)[0]

    return Operator(product, flat)


fisher = gauss_newton
"""The Fisher matrix of a `losses.NetworkRisk`, an expectation over the labels that the model itself would draw."""


def empirical_fisher(loss, theta: Theta) -> Operator:
    r"""$\sum_i w\, g_i g_i^T$ with the gradients $g_i$ of the single samples, at their labels; $w$ is 1/m for "mean".

    Not the Fisher matrix, which takes the expectation over labels; see Kunstner et al. 2019 (arXiv:1905.12558) for how
    far off it can be.
    """
    outputs, flat = _outputs(loss, theta)

    def product(v):
        z, Jv = jax.jvp(outputs, (flat,), (v,))
        slopes = loss.output_gradients(ravel_pytree(theta)[1](flat))
        weight = 1.0 if loss.reduction == "sum" else 1.0 / len(z)
        along = jnp.sum((slopes * Jv).reshape(len(z), -1), axis=1) * jnp.asarray(weight, z.dtype)
        return jax.vjp(outputs, flat)[1](slopes * along.reshape(-1, *[1] * (z.ndim - 1)))[0]

    return Operator(product, flat)


def ntk(loss, theta: Theta) -> Operator:
    r"""$K = J J^T$, the neural tangent kernel on the data (Jacot et al. 2018): rows are samples times outputs.

    Under gradient flow outputs move by $\dot z = -K \nabla\ell(z)$. With the sum of squares over 2 as loss it has the
    non-zero eigenvalues of `gauss_newton`; with their mean, $m$ times these.
    """
    outputs, flat = _outputs(loss, theta)
    z, unravel = ravel_pytree(staged(outputs, flat))

    def product(u):
        pulled = jax.vjp(outputs, flat)[1](unravel(u))[0]
        return ravel_pytree(jax.jvp(outputs, (flat,), (pulled,))[1])[0]

    return Operator(product, z)


def block(loss: LossFn, theta: Theta, where: Callable[[Theta], Theta]) -> tuple[LossFn, Theta]:
    r"""The loss as a function of some of its parameters, the others held: `(loss, part)` for any tool that takes both.

    The Hessian of it is the diagonal block of these parameters.

    Parameters
    ----------
    where
        From `theta` to the leaves or branches that may move: one, or a tuple of them; see `equinox.tree_at`.

    Raises
    ------
    ValueError
        If what `where` gives is no part of `theta`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.curvature import hessian
    >>> loss = lambda t: 3 * t["w"] ** 2 + t["w"] * t["b"]
    >>> print(hessian(*block(loss, {"w": jnp.array(1.0), "b": jnp.array(2.0)}, lambda t: t["w"])))
    [[6.]]
    """
    theta = check_loss(loss, theta)
    try:
        part = where(theta)
        eqx.tree_at(where, theta, part)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"where: expected a function from theta to parts of it, such as lambda t: t['w'], got {where!r}, which "
            f"raised {type(error).__name__}: {error}"
        ) from error
    return lambda part: loss(eqx.tree_at(where, theta, part)), part


def _outputs(loss, theta: Theta) -> tuple[Callable, Point]:
    """The outputs as a function of flat parameters, and these."""
    if missing := [name for name in ("outputs", "of_outputs") if not callable(getattr(loss, name, None))]:
        raise ValueError(
            f"expected a loss of a network's outputs, such as losses.NetworkRisk, got {type(loss).__name__} without "
            f"{' and '.join(missing)}; use hessian_operator, or write these methods"
        )
    flat, unravel = ravel_pytree(check_loss(loss, theta))
    return lambda x: loss.outputs(unravel(x)), flat
