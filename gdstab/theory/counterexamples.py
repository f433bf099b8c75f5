r"""Points at which printed claims about the minima of linear networks fail, for whitened data and full-rank targets.

Paper A, Theorem 12 (47 in its appendix) says that every non-zero Hessian eigenvalue is proper on M, that is, tends to
infinity at infinity; Corollaries 13 and 17 follow from it. `vanishing_eigenvalue_path` and `invisible_line` refute it.
What holds: $\lambda_{max}$ is proper for one hidden layer (`sharpness_bound`), and for square layers with
invertible W*.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab._types import Scalar
from gdstab.theory.factorisations import Layers, balanced_factorisation
from gdstab.theory.linear import Inputs, Map, Targets, reduced_rank_map, truncated_map


@arguments.closed_form(target=arguments.matrix, widths=arguments.widths, stretch=arguments.positive)
def vanishing_eigenvalue_path(target: Map, widths: Sequence[int], stretch: float | Scalar) -> Layers:
    r"""A minimum $\theta(t)$, t = `stretch`, whose least positive Hessian eigenvalue falls like $t^{-2}$.

    The balanced minimum with $D = \mathrm{diag}(t, 1/t, 1, \dots)$ passed from the first layer to the last:
    $W_h D$ and $D^{-1} W_1$. The eigenvalue of the output direction $u_2$ with the input direction $v_1$ is, for
    h = 2, $2c (\sigma_1 + \sigma_2) / t^2$; for more layers the extra terms are of order $t^{-4}$.
    $\lambda_{max}$ grows like $t^2$ for h = 2 and like $t^4$ beyond, so read the least eigenvalue off the singular
    values of the Jacobian (squared, times 2c), not off the Hessian, whose rounding hides it.

    Raises
    ------
    ValueError
        If a layer is narrower than 2, or h = 1.
    """
    if len(widths) < 3 or min(widths) < 2:
        raise ValueError(f"expected a hidden layer and widths of at least 2, but got widths {tuple(widths)}.")
    first, *middle, last = balanced_factorisation(target, widths)
    t = jnp.asarray(stretch, first.dtype)
    first = first.at[0].divide(t).at[1].multiply(t)
    last = last.at[:, 0].multiply(t).at[:, 1].divide(t)
    return (first, *middle, last)


@arguments.closed_form(target=arguments.matrix, widths=arguments.widths, distance=arguments.real)
def invisible_line(target: Map, widths: Sequence[int], distance: float | Scalar) -> Layers:
    r"""A minimum at `distance` along a line of minima on which the whole Hessian spectrum is constant, h >= 3.

    Two hidden layers in a row that are wider than the rank of the balanced factorisation leave an entry of the matrix
    between them that meets zeros on both sides. So the stable minima are unbounded, and $\lambda_{max}$ is not proper.

    Raises
    ------
    ValueError
        If no two hidden layers in a row are wider than the least of d_in, d_out.
    """
    rank = min(widths[0], widths[-1])
    wide = [j for j in range(1, len(widths) - 2) if min(widths) >= rank and min(widths[j : j + 2]) > rank]
    if not wide:
        raise ValueError(
            f"expected two hidden layers in a row wider than min(d_in, d_out) = {rank} and none narrower, "
            f"but got widths {tuple(widths)}."
        )
    layers = [*balanced_factorisation(target, widths)]
    layers[wide[0]] = layers[wide[0]].at[rank, rank].set(distance)
    return tuple(layers)


@arguments.closed_form(theta=arguments.layers, scale=arguments.positive)
def sharpness_bound(theta: Layers, scale: float = 0.5) -> Scalar:
    r"""$2c \max(\lVert W_1 \rVert_2, \lVert W_2 \rVert_2)^2 \le \lambda_{max}$ at a minimum, one hidden layer.

    The bound is proper, so $\lambda_{max}$ is. (The Hessian there has the eigenvalues of
    $2c\,(W_2 W_2^T \otimes I + I \otimes W_1^T W_1)$, apart from zeros, if the network is filling.)
    """
    W_1, W_2 = theta
    return 2 * scale * jnp.maximum(jnp.linalg.norm(W_1, 2), jnp.linalg.norm(W_2, 2)) ** 2


@arguments.closed_form(inputs=arguments.matrix, targets=arguments.matrix, rank=arguments.number)
def truncation_excess(inputs: Inputs, targets: Targets, rank: int) -> Float[Array, ""]:
    r"""$\lVert Y - [W^*]_r X \rVert^2 - \lVert Y - W_r X \rVert^2 \ge 0$: what [A] Proposition 2, as printed, loses.

    Zero for whitened data. $W_r$ is `linear.reduced_rank_map`.
    """
    X, Y = jnp.asarray(inputs), jnp.asarray(targets)
    maps = truncated_map(inputs, targets, rank), reduced_rank_map(inputs, targets, rank)
    truncated, best = (jnp.sum((Y - W @ X) ** 2) for W in maps)
    return truncated - best
