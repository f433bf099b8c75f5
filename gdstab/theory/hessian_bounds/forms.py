r"""The Hessian of a homogeneous network as a quadratic form, exactly, without differentiating anything twice.

The outputs along $W_j + s \, \Delta W_j$ are a polynomial in s; its coefficients of first and second order are carried
through the layers, which is what the sums over j and j < j' of the lemmas amount to.

Source: [D] Elkabetz and Cohen, Lemmas 5, 9 and 21.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab._numerics import matmul
from gdstab._types import Scalar
from gdstab.theory.hessian_bounds.sharing import Patterns, Weights, realise

Layers = tuple[Float[Array, "_ _"], ...]
Gates = tuple[Float[Array, "_ samples"], ...]
Slopes = tuple[float, float]
Columns = Float[Array | np.ndarray, "_ samples"]


@arguments.closed_form(
    layers=arguments.layers, directions=arguments.layers, gradient=arguments.matrix, curvature=arguments.function
)
def linear_form(
    layers: Layers,
    directions: Layers,
    gradient: Float[Array, "d_out d_in"],
    curvature: Callable[[Float[Array, "d_out d_in"]], Scalar],
) -> Scalar:
    r"""$\nabla^2 L[\Delta W_1, \dots, \Delta W_n]$ of $L = \phi(W_n \cdots W_1)$ ([D] Lemma 5, (12)).

    $$\nabla^2\phi \Big[ \sum_j W_{n:j+1} \Delta W_j W_{j-1:1} \Big]
      + 2 \, \Big\langle \nabla\phi, \sum_{j < j'} W_{n:j'+1} \Delta W_{j'} W_{j'-1:j+1} \Delta W_j W_{j-1:1}
      \Big\rangle$$

    Parameters
    ----------
    gradient
        $\nabla\phi$ at the product.
    curvature
        The form $\nabla^2\phi[\cdot]$ there; the sum of squares for $\phi(W) = \frac12 \lVert W - T \rVert_F^2$.

    Examples
    --------
    >>> W, D = (jnp.array([[2.0]]), jnp.array([[3.0]])), (jnp.array([[1.0]]), jnp.array([[1.0]]))
    >>> float(linear_form(W, D, jnp.array([[5.0]]), lambda change: jnp.sum(change**2)))  # (xy - 1)^2 / 2 at 2, 3
    35.0
    """
    identity = jnp.eye(layers[0].shape[1], dtype=layers[0].dtype)
    _, first, second = _expand(layers, directions, (), identity)
    return curvature(first) + 2 * jnp.sum(gradient * second)


@arguments.closed_form(
    layers=arguments.layers,
    directions=arguments.layers,
    inputs=arguments.matrix,
    output_gradients=arguments.matrix,
    output_hessians=arguments.real,
)
def gated_form(
    layers: Layers,
    directions: Layers,
    gates: Gates,
    inputs: Columns,
    output_gradients: Columns,
    output_hessians: Float[Array, "samples d_out d_out"],
) -> Scalar:
    r"""$\nabla^2 L[\Delta W_1, \dots, \Delta W_n]$ where the activations are at fixed slopes ([D] Lemma 9, (16)).

    Parameters
    ----------
    gates
        The slopes $D'_{i,j}$ of every hidden layer, [width, samples]: see `activation_gates`.
    output_gradients, output_hessians
        $\nabla\ell_i$ and $\nabla^2\ell_i$ of the loss of each sample at the network's output.
    """
    _, first, second = _expand(layers, directions, gates, jnp.asarray(inputs))
    convex = jnp.einsum("is,sij,js->", first, output_hessians, first, precision="highest")
    return (convex + 2 * jnp.sum(jnp.asarray(output_gradients) * second)) / inputs.shape[1]


@arguments.closed_form(inputs=arguments.matrix, output_gradients=arguments.matrix, output_hessians=arguments.real)
def shared_form(
    patterns: Patterns,
    weights: Weights,
    directions: Weights,
    gates: Gates,
    inputs: Columns,
    output_gradients: Columns,
    output_hessians: Float[Array, "samples d_out d_out"],
) -> Scalar:
    r"""$\nabla^2 L[\Delta w_1, \dots, \Delta w_n]$ for layers that share weights ([D] Lemma 21, (30)).

    It is `gated_form` at $W_j(w_j)$ along $W_j(\Delta w_j)$, because $W_j$ is linear.
    """
    layers, moves = realise(patterns, weights), realise(patterns, directions)
    return gated_form(layers, moves, gates, inputs, output_gradients, output_hessians)


@arguments.closed_form(layers=arguments.layers, inputs=arguments.matrix, slopes=arguments.slopes)
def activation_gates(layers: Layers, inputs: Columns, slopes: Slopes = (1.0, 0.0)) -> Gates:
    r"""The slope of every hidden neuron on every sample: $\alpha$ where its input is positive, else $\bar\alpha$."""
    gates, value = [], jnp.asarray(inputs)
    for W in layers[:-1]:
        value = matmul(W, value)
        gates.append(jnp.where(value > 0, jnp.asarray(slopes[0], value.dtype), jnp.asarray(slopes[1], value.dtype)))
        value = gates[-1] * value
    return tuple(gates)


@arguments.closed_form(layers=arguments.layers, inputs=arguments.matrix, slopes=arguments.slopes)
def outputs(layers: Layers, inputs: Columns, slopes: Slopes = (1.0, 0.0)) -> Float[Array, "d_out samples"]:
    r"""$W_n \sigma(W_{n-1} \cdots \sigma(W_1 x))$ for every sample ([D] (8)).

    Examples
    --------
    >>> outputs((jnp.array([[1.0], [-1.0]]), jnp.array([[2.0, 3.0]])), jnp.array([[1.0, -1.0]])).tolist()
    [[2.0, 3.0]]
    """
    gates, value = activation_gates(layers, inputs, slopes), jnp.asarray(inputs)
    for W, gate in zip(layers[:-1], gates, strict=True):
        value = gate * matmul(W, value)
    return matmul(layers[-1], value)


def _expand(layers, directions, gates, inputs):
    """The coefficients of s^0, s^1 and s^2 in the outputs along `layers` + s `directions`."""
    value = inputs
    first = second = jnp.zeros_like(inputs)
    for number, (W, D) in enumerate(zip(layers, directions, strict=True)):
        second = matmul(W, second) + matmul(D, first)
        first = matmul(W, first) + matmul(D, value)
        value = matmul(W, value)
        if number < len(gates):
            value, first, second = (gates[number] * each for each in (value, first, second))
    return value, first, second
