r"""Points where the least Hessian eigenvalue is below any number: deep networks are not smooth from below.

Source: [D] Elkabetz and Cohen, Propositions 6, 10 and 22, whose proofs are constructive.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from gdstab import _arguments as arguments
from gdstab._numerics import as_floats, sum_squares
from gdstab._types import Scalar
from gdstab._validate import check_positive
from gdstab.theory.hessian_bounds.forms import Columns, Layers, Slopes, outputs
from gdstab.theory.hessian_bounds.sharing import Patterns, Weights, realise

OutputLoss = Callable[[Float[Array, " d_out"], Any], Scalar]

_MOST_DOUBLINGS = 200
"""Of the factor of Propositions 10 and 22, which grows in proportion to the curvature asked for."""


class ConcavePoint(NamedTuple):
    """A point of large negative curvature."""

    theta: tuple[Array, ...]
    """The layers, or the weights that they share."""
    direction: tuple[Array, ...]
    """A direction, shaped as `theta`, along which the curvature is that negative."""
    curvature: float
    r"""$\Delta^T \nabla^2 L \Delta / \lVert \Delta \rVert^2$ along it: no less than $\lambda_{\min}$."""


@arguments.closed_form(gradient_at_zero=arguments.matrix, widths=arguments.widths)
def linear_concave_point(
    gradient_at_zero: Num[Array | np.ndarray, "d_out d_in"], widths: Sequence[int], curvature: float
) -> ConcavePoint:
    r"""Layers with $\lambda_{\min}(\nabla^2 L) = -c$, $L = \phi(W_n \cdots W_1)$, n >= 3 ([D] Proposition 6).

    $W_1 = W_2 = 0$, and $W_n \cdots W_3 = (c / \sigma) \, u e_1^T$, where $\sigma, u, v$ are the largest singular value
    of $\nabla\phi(0)$ and its vectors. The direction is $\Delta W_1 = e_1 v^T$, $\Delta W_2 = -e_1 e_1^T$. The layers
    from the third on share the factor $c/\sigma$; in the proof it is all in $W_3$.

    Parameters
    ----------
    gradient_at_zero
        $\nabla\phi(0)$: $-Y X^T$ for $\phi(W) = \frac12 \lVert Y - W X \rVert_F^2$.
    widths
        $(d_0, \dots, d_n)$.
    curvature
        c > 0.

    Raises
    ------
    ValueError
        If the network has fewer than three layers, the widths do not fit, or the gradient is zero: then there may be
        no such point ([D] Claim 27).

    Examples
    --------
    >>> point = linear_concave_point(-jnp.eye(1), (1, 1, 1, 1), 100.0)
    >>> [abs(float(W[0, 0])) for W in point.theta], point.curvature
    ([0.0, 0.0, 100.0], -100.0)
    """
    c, gradient = check_positive(curvature, "curvature"), as_floats(gradient_at_zero)
    _check_depth(len(widths) - 1)
    if gradient.shape != (widths[-1], widths[0]):
        raise ValueError(
            f"expected a gradient of shape {(widths[-1], widths[0])}, got {gradient.shape}; fit the widths"
        )
    left, sizes, right = jnp.linalg.svd(gradient, full_matrices=False)
    if not float(sizes[0]) > 0:
        raise ValueError(
            "expected a gradient that is not zero at the zero map, which is a global minimum; shift the data"
        )
    share = (c / sizes[0]) ** (1 / (len(widths) - 3))
    layers = [jnp.zeros((b, a), gradient.dtype) for a, b in itertools.pairwise(widths)]
    theta = [*layers[:2], *(W.at[0, 0].set(share) for W in layers[2:-1]), layers[-1].at[:, 0].set(share * left[:, 0])]
    direction = [layers[0].at[0].set(right[0]), layers[1].at[0, 0].set(-1.0), *layers[2:]]
    return ConcavePoint(tuple(theta), tuple(direction), -c)


@arguments.closed_form(
    output_loss=arguments.function, layers=arguments.layers, inputs=arguments.matrix, slopes=arguments.slopes
)
def homogeneous_concave_point(
    output_loss: OutputLoss,
    layers: Layers,
    inputs: Columns,
    targets: Any,
    curvature: float,
    slopes: Slopes = (1.0, 0.0),
) -> ConcavePoint:
    r"""Layers with $\lambda_{\min}(\nabla^2 L) \le -c$ for homogeneous activations, n >= 3 ([D] Proposition 10).

    $(a^{-2} W_1, a^{-2} W_2, a W_3, W_4, \dots)$ along $(W_1, W_2, 0, \dots)$, a so large that the curvature there,
    which tends to $-\infty$ like a, is -c; if need be $W_n$ has its sign flipped.

    Parameters
    ----------
    output_loss
        $\ell(\text{prediction}, \text{target})$, convex in the prediction.
    layers
        Any with $\sum_i \nabla\ell(0, y_i) \cdot h_\theta(x_i) \ne 0$ and no neuron at its kink: random ones will do.
    inputs, targets
        The data: columns [d_in, samples], and targets with the samples on their leading axis.
    curvature
        c > 0.

    Raises
    ------
    ValueError
        If the network has fewer than three layers or that sum is zero: then there may be no such point ([D] Claim 28).
    """
    return _rescale(output_loss, lambda theta: outputs(theta, inputs, slopes), layers, targets, curvature)


@arguments.closed_form(output_loss=arguments.function, inputs=arguments.matrix, slopes=arguments.slopes)
def shared_concave_point(
    patterns: Patterns,
    output_loss: OutputLoss,
    weights: Weights,
    inputs: Columns,
    targets: Any,
    curvature: float,
    slopes: Slopes = (1.0, 0.0),
) -> ConcavePoint:
    """The same for layers that share weights, convolutions among them ([D] Proposition 22)."""
    network = lambda theta: outputs(realise(patterns, theta), inputs, slopes)  # noqa: E731
    return _rescale(output_loss, network, weights, targets, curvature)


def _rescale(output_loss, network, theta, targets, curvature):
    c = check_positive(curvature, "curvature")
    _check_depth(len(theta))
    theta = tuple(map(as_floats, theta))
    predictions = network(theta).T
    slope, curve = jax.grad(output_loss), jax.hessian(output_loss)
    drive = float(jnp.mean(jnp.sum(jax.vmap(slope)(jnp.zeros_like(predictions), targets) * predictions, axis=1)))
    if drive == 0:
        raise ValueError(
            "expected parameters whose outputs are not orthogonal to the gradients of the loss at zero, got a sum "
            "of 0; draw others, and if none will do the data are degenerate"
        )
    if drive > 0:
        theta, predictions = (*theta[:-1], -theta[-1]), -predictions
    size = sum_squares(theta[:2])

    @jax.jit
    def along(a):
        """The curvature at theta(a) along (W_1, W_2, 0, ...), by the form of Lemma 9."""

        def sample(h, y):
            return 4 * h @ curve(h / a**3, y) @ h / a**2 + 2 * a * slope(h / a**3, y) @ h

        return jnp.mean(jax.vmap(sample)(predictions, targets)) / size

    high = 1.0
    for _ in range(_MOST_DOUBLINGS):
        if float(along(high)) <= -c:
            break
        high *= 2
    else:
        raise ValueError(f"no factor up to {high:g} makes the curvature -{c:g}: ask for less, or use larger layers")
    low = high / 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if float(along(middle)) <= -c else (middle, high)
    found = (theta[0] / high**2, theta[1] / high**2, theta[2] * high, *theta[3:])
    direction = (theta[0], theta[1], *(jnp.zeros_like(W) for W in theta[2:]))
    return ConcavePoint(found, direction, float(along(high)))


def _check_depth(depth):
    if depth < 3:
        raise ValueError(
            f"expected at least three layers, got {depth}: with two the least eigenvalue is bounded where the "
            "gradients of the loss are"
        )
