r"""How unbalanced a linear network is, and balanced points near it.

Balanced: $W_{j+1}^T W_{j+1} = W_j W_j^T$ for every hidden layer, that is $W_j = Q_j D Q_{j-1}^T$ with one diagonal
matrix D and frames $Q_j$ with orthonormal columns.

Source: [D] Elkabetz and Cohen, Appendix G, after Lemma 1 of Razin and Cohen (2020).
"""

import itertools
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab._types import Scalar
from gdstab._validate import check_count
from gdstab.theory.factorisations import Layers, balancedness

Frame = Float[Array, "_ rank"]


@arguments.closed_form(layers=arguments.layers)
def unbalancedness(layers: Layers) -> Scalar:
    r"""$\max_j \lVert W_{j+1}^T W_{j+1} - W_j W_j^T \rVert_{\mathrm{nuclear}}$ ([D] Definition 30).

    Examples
    --------
    >>> float(unbalancedness((jnp.array([[1.0]]), jnp.array([[2.0]]))))
    3.0
    """
    gaps = [jnp.sum(jnp.abs(jnp.linalg.eigvalsh(C))) for C in balancedness(layers)]
    return jnp.max(jnp.stack(gaps)) if gaps else jnp.zeros((), layers[0].dtype)


@arguments.closed_form(layers=arguments.layers)
def balanced_nearby(layers: Layers) -> Layers:
    r"""A balanced point at a distance of at most $\sqrt{s \hat\epsilon}$, explicitly ([D] Lemma 31, sharpened).

    One layer is kept; from it outwards $\hat W_{j+1} = U_{j+1} (\hat W_j \hat W_j^T)^{1/2}$ with the polar factor
    $U_{j+1}$ of $W_{j+1}$, and its mirror image downwards. The layer kept is one next to the narrowest width; of
    several the one with the smallest sum s of the numbers of layers to all others. For widths that fall up to
    there and rise from there, weakly, `balanced_distance` is proved; for others it is an answer without a bound (the
    frames are then made orthonormal at each layer).

    Examples
    --------
    >>> layers = (jnp.array([[1.0]]), jnp.array([[2.0]]), jnp.array([[-3.0]]))
    >>> [W.tolist() for W in balanced_nearby(layers)]
    [[[2.0]], [[2.0]], [[-2.0]]]
    """
    sizes, frames = _frames(layers)
    return _compose(sizes, frames)


@arguments.closed_form(layers=arguments.layers)
def balanced_distance(layers: Layers) -> Scalar:
    r"""$\sqrt{s \hat\epsilon}$, the bound on the distance of `balanced_nearby`; inf where none is proved.

    s sums the numbers of layers between the one that is kept and each other: $n(n-1)/2$ if an outer one is kept, as
    in [D], which has $n^3$ for s; $\lfloor n^2/4 \rfloor$ if all widths are equal. For by the inequality of Powers and
    Stormer $\lVert \hat W_{j+1} - W_{j+1} \rVert_F^2 \le \lVert \hat W_j \hat W_j^T - W_{j+1}^T W_{j+1} \rVert_*$, and
    these nuclear norms grow by at most $\hat\epsilon$ from layer to layer.

    Examples
    --------
    >>> round(float(balanced_distance((jnp.eye(1), 2 * jnp.eye(1), jnp.eye(1))) ** 2), 6)
    6.0
    """
    kept, proved = _kept(_widths(layers))
    reach = sum(abs(j - kept) for j in range(len(layers)))
    return jnp.sqrt(reach * unbalancedness(layers)) if proved else jnp.array(math.inf, layers[0].dtype)


@arguments.closed_form(layers=arguments.layers)
def nearest_balanced(layers: Layers, sweeps: int = 100) -> Layers:
    r"""A balanced point that is nearest among its neighbours: `balanced_nearby` improved, block by block.

    Minimises $\sum_j \lVert W_j - Q_j D Q_{j-1}^T \rVert_F^2$ over one frame at a time (a Procrustes problem) and over
    $D \ge 0$; no sweep increases it. The problem is not convex: the result is no farther than the start, and need not
    be the nearest of all.

    Examples
    --------
    >>> layers = (jnp.array([[1.0]]), jnp.array([[2.0]]), jnp.array([[-3.0]]))
    >>> [W.tolist() for W in nearest_balanced(layers)]
    [[[2.0]], [[2.0]], [[-2.0]]]
    """
    sizes, frames = lax.fori_loop(
        0, check_count(sweeps, "sweeps", least=0), lambda _, state: _sweep(layers, *state), _frames(layers)
    )
    return _compose(sizes, frames)


def _sweep(layers, sizes, frames):
    frames, last = list(frames), len(layers)
    for j in range(last + 1):
        pull = jnp.zeros_like(frames[j])
        if j > 0:
            pull = pull + (layers[j - 1] @ frames[j - 1]) * sizes[None, :]
        if j < last:
            pull = pull + (layers[j].T @ frames[j + 1]) * sizes[None, :]
        frames[j] = _polar(pull)
    along = [
        jnp.sum(above * (W @ below), axis=0)
        for W, (below, above) in zip(layers, itertools.pairwise(frames), strict=True)
    ]
    return jnp.maximum(jnp.mean(jnp.stack(along), axis=0), 0), tuple(frames)


def _frames(layers: Layers) -> tuple[Float[Array, " rank"], tuple[Frame, ...]]:
    """The singular values of the layer that is kept, and a frame for every width."""
    kept, _ = _kept(_widths(layers))
    left, sizes, right = jnp.linalg.svd(layers[kept], full_matrices=False)
    up, down = [left], [right.T]
    for W in layers[kept + 1 :]:
        up.append(_polar(_polar(W) @ up[-1]))
    for W in layers[:kept][::-1]:
        down.append(_polar(_polar(W.T) @ down[-1]))
    return sizes, (*down[::-1], *up)


def _kept(widths):
    """The layer from which to start, and whether the widths fall up to it and rise from it."""
    depth, least = len(widths) - 1, min(widths)

    def reach(layer):
        return sum(abs(j - layer) for j in range(depth))

    def valley(layer):
        falls = all(a >= b for a, b in itertools.pairwise(widths[: layer + 1]))
        return falls and all(a <= b for a, b in itertools.pairwise(widths[layer + 1 :]))

    near = [layer for layer in range(depth) if least in widths[layer : layer + 2]]
    proved = [layer for layer in near if valley(layer)]
    return min(proved or near, key=reach), bool(proved)


def _widths(layers):
    return [layers[0].shape[1], *(W.shape[0] for W in layers)]


def _polar(matrix):
    """The nearest matrix with orthonormal columns (or rows)."""
    left, _, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left @ right


def _compose(sizes, frames):
    return tuple((above * sizes[None, :]) @ below.T for below, above in itertools.pairwise(frames))
