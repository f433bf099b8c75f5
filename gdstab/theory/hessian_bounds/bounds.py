r"""Bounds from below on $\lambda_{\min}(\nabla^2 L)$, at any point, and at points that flow reaches from near zero.

All are JAX functions of the layers and can be batched. Norms of the layers enter as
$\max_{|J| = n - 2} \prod_{j \in J}$, the product of all but the two smallest.

Source: [D] Elkabetz and Cohen, section 4 and Appendix C.
"""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab._numerics import matmul
from gdstab._types import Scalar
from gdstab._validate import check_positive
from gdstab.theory.hessian_bounds.forms import Columns, Layers, Slopes
from gdstab.theory.hessian_bounds.sharing import Patterns, Weights, operator_norm


@arguments.closed_form(layers=arguments.layers, gradient=arguments.matrix)
def linear_bound(
    layers: Layers,
    gradient: Float[Array, "d_out d_in"],
    *,
    gradient_norm: Literal["frobenius", "nuclear"] = "frobenius",
) -> Scalar:
    r"""For $L = \phi(W_n \cdots W_1)$, $\phi$ convex ([D] Lemma 7, (13)).

    $$-(n-1) \sqrt{\min\{d_0, d_n\}} \, \lVert \nabla\phi \rVert_F \max_{|J| = n-2} \prod_{j \in J}
      \lVert W_j \rVert_s$$

    `gradient_norm` = "nuclear" takes $\lVert \nabla\phi \rVert_*$, which the proof has, for the first two factors.

    Examples
    --------
    >>> float(linear_bound((jnp.eye(1), 2 * jnp.eye(1), 3 * jnp.eye(1)), jnp.array([[0.5]])))
    -3.0
    """
    return -_pull(gradient, gradient_norm) * (len(layers) - 1) * _all_but_two(_spectral(layers))


@arguments.closed_form(layers=arguments.layers, gradient=arguments.matrix)
def linear_bound_near_zero(layers: Layers, gradient: Float[Array, "d_out d_in"], radius: float) -> Scalar:
    r"""The same on a flow that began within $\epsilon \le 1/(2n)$ of the origin ([D] Proposition 8, (14)).

    $$-(n-1) \sqrt{\min\{d_0, d_n\}} \, \lVert \nabla\phi \rVert_F \Big( \lVert W_{n:1} \rVert_s^{1-2/n}
      + \big(4 n \epsilon \max\{1, \max_j \lVert W_j \rVert_s\}^{2n}\big)^{1-2/n} \Big)$$

    Raises
    ------
    ValueError
        If the radius is above 1/(2n).
    """
    n, radius = len(layers), check_positive(radius, "radius")
    if radius > 1 / (2 * n):
        raise ValueError(f"radius: expected at most 1 / (2 n) = {1 / (2 * n):g}, got {radius}; start nearer to zero")
    product = layers[0]
    for W in layers[1:]:
        product = matmul(W, product)
    largest = jnp.maximum(1.0, jnp.max(_spectral(layers)))
    size = jnp.linalg.norm(product, 2) ** (1 - 2 / n) + (4 * n * radius) ** (1 - 2 / n) * largest ** (2 * (n - 2))
    return -(n - 1) * _pull(gradient, "frobenius") * size


@arguments.closed_form(
    layers=arguments.layers, output_gradients=arguments.matrix, inputs=arguments.matrix, slopes=arguments.slopes
)
def homogeneous_bound(
    layers: Layers,
    output_gradients: Columns,
    inputs: Columns,
    slopes: Slopes = (1.0, 0.0),
    *,
    layer_norm: Literal["frobenius", "spectral"] = "frobenius",
) -> Scalar:
    r"""For homogeneous activations, where the Hessian exists ([D] Lemma 11, (17)).

    $$-\max\{|\alpha|, |\bar\alpha|\}^{n-1} \frac{n-1}{N} \sum_i \lVert \nabla\ell_i \rVert \lVert x_i \rVert
      \max_{|J| = n-2} \prod_{j \in J} \lVert W_j \rVert_F$$

    `layer_norm` = "spectral" is sharper and holds as well: the proof has it.

    Parameters
    ----------
    output_gradients
        $\nabla\ell_i$ of the loss of each sample at the network's output, [d_out, samples].

    Examples
    --------
    >>> layers = (jnp.eye(1), 2 * jnp.eye(1), 3 * jnp.eye(1))
    >>> float(homogeneous_bound(layers, jnp.array([[1.0, -1.0]]), jnp.array([[2.0, 4.0]])))
    -18.0
    """
    _check_norm(layer_norm, "layer_norm", "frobenius", "spectral")
    norms = _spectral(layers) if layer_norm == "spectral" else _frobenius(layers)
    return -_drive(len(layers), output_gradients, inputs, slopes) * _all_but_two(norms)


@arguments.closed_form(
    layers=arguments.layers, output_gradients=arguments.matrix, inputs=arguments.matrix, slopes=arguments.slopes
)
def homogeneous_bound_near_zero(
    layers: Layers, output_gradients: Columns, inputs: Columns, radius: float, slopes: Slopes = (1.0, 0.0)
) -> Scalar:
    r"""The same on a flow that began within $\epsilon$ of the origin ([D] Proposition 12, (18)).

    The product becomes $(\min_j \lVert W_j \rVert_F + \epsilon)^{n-2}$.
    """
    n, radius = len(layers), check_positive(radius, "radius")
    return -_drive(n, output_gradients, inputs, slopes) * (jnp.min(_frobenius(layers)) + radius) ** (n - 2)


@arguments.closed_form(output_gradients=arguments.matrix, inputs=arguments.matrix, slopes=arguments.slopes)
def shared_bound(
    patterns: Patterns, weights: Weights, output_gradients: Columns, inputs: Columns, slopes: Slopes = (1.0, 0.0)
) -> Scalar:
    r"""For layers that share weights, convolutions among them ([D] Lemma 23, (31)).

    As `homogeneous_bound`, with $\lVert w_j \rVert_2$ for the norms and the factor
    $\prod_j \lVert W_j(\cdot) \rVert_{op}$, over all layers.
    """
    shared = math.prod(map(operator_norm, patterns))
    return -shared * _drive(len(weights), output_gradients, inputs, slopes) * _all_but_two(_frobenius(weights))


@arguments.closed_form(output_gradients=arguments.matrix, inputs=arguments.matrix, slopes=arguments.slopes)
def shared_bound_near_zero(
    patterns: Patterns,
    weights: Weights,
    output_gradients: Columns,
    inputs: Columns,
    radius: float,
    slopes: Slopes = (1.0, 0.0),
) -> Scalar:
    r"""The same on a flow that began within $\epsilon$ of the origin ([D] Proposition 24, (32)).

    The product becomes $(\min_j \lVert w_j \rVert_2 + \epsilon)^{n-2}$.
    """
    n, shared, radius = len(weights), math.prod(map(operator_norm, patterns)), check_positive(radius, "radius")
    size = (jnp.min(_frobenius(weights)) + radius) ** (n - 2)
    return -shared * _drive(n, output_gradients, inputs, slopes) * size


def _all_but_two(norms):
    """The largest product of n - 2 of n norms; of none it is 1."""
    return jnp.prod(jnp.sort(norms)[2:])


def _spectral(layers):
    return jnp.stack([jnp.linalg.norm(W, 2) for W in layers])


def _frobenius(layers):
    return jnp.stack([jnp.sqrt(jnp.sum(W * W)) for W in layers])


def _check_norm(kind, name, *known):
    if kind not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {kind!r}; choose one of them")


def _pull(gradient, kind):
    _check_norm(kind, "gradient_norm", "frobenius", "nuclear")
    if kind == "nuclear":
        return jnp.sum(jnp.linalg.svd(gradient, compute_uv=False))
    return math.sqrt(min(gradient.shape)) * jnp.linalg.norm(gradient)


def _drive(n, output_gradients, inputs, slopes):
    """What the data contribute: max slope^(n-1) (n-1) mean_i |grad l_i| |x_i|."""
    sizes = jnp.linalg.norm(jnp.asarray(output_gradients), axis=0) * jnp.linalg.norm(jnp.asarray(inputs), axis=0)
    return max(map(abs, slopes)) ** (n - 1) * (n - 1) * jnp.mean(sizes)
