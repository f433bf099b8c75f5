r"""Where the training of networks starts: Xavier's uniform distribution, PyTorch's default, and near balance.

Distributions are those of PyTorch, bit patterns are not. Paper D draws weights by `torch.nn.init.xavier_uniform_` (its
Appendix H.2, which says nothing about biases: a layer of PyTorch draws them uniform in $\pm 1/\sqrt{\text{fan in}}$).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.optimize import brentq

from gdstab._validate import check_dtype, check_positive
from gdstab.theory.factorisations import balanced_initialisation

Layers = tuple[Float[Array, "..."], ...]


def xavier_uniform(key: PRNGKeyArray, shape: Sequence[int], dtype: Any = None) -> Float[Array, "..."]:
    r"""Uniform in $\pm\sqrt{6 / (\text{fan in} + \text{fan out})}$ (Glorot and Bengio 2010, eq. 16).

    For a matrix [outputs, inputs] the fans are its sides, for a kernel [outputs, inputs, height, width] its channels
    times height and width: the same distribution as `torch.nn.init.xavier_uniform_` with gain 1.

    >>> import jax
    >>> bool(abs(xavier_uniform(jax.random.key(0), (2, 4))).max() <= 1)
    True
    """
    return jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)(key, tuple(shape), check_dtype(dtype))


def fan_in_uniform(key: PRNGKeyArray, shape: Sequence[int], fan_in: int, dtype: Any = None) -> Float[Array, "..."]:
    r"""Uniform in $\pm 1/\sqrt{\text{fan in}}$: how PyTorch fills layers, weights and biases, if not told otherwise.

    >>> import jax
    >>> bool(abs(fan_in_uniform(jax.random.key(0), (9,), 4)).max() <= 0.5)
    True
    """
    reach = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, tuple(shape), check_dtype(dtype), -reach, reach)


def random_layers(
    key: PRNGKeyArray,
    shapes: Sequence[Sequence[int]],
    *,
    biases: bool = False,
    kernels: str = "xavier",
    scale: float = 1.0,
    dtype: Any = None,
) -> tuple[Layers, Layers | None]:
    r"""Weights of the shapes given, Xavier-uniform, and their biases, uniform in $\pm 1/\sqrt{\text{fan in}}$, or None.

    Parameters
    ----------
    shapes
        Of the weights: [outputs, inputs], or [outputs, inputs, height, width] for kernels of convolutions.
    kernels
        "xavier" as Appendix H.2 of paper D says, or "default", PyTorch's: the code published with the paper
        (github.com/elkabzo/cont_disc_opt_dnn) redraws matrices only, and leaves kernels as PyTorch made them.
    scale
        All parameters are multiplied by it; small ones start near zero, where the paper's theory applies.
    """
    if kernels not in ("xavier", "default"):
        raise ValueError(f"kernels: expected 'xavier' or 'default', got {kernels!r}; choose one of them")
    factor, dtype = check_positive(scale, "scale"), check_dtype(dtype)
    key_weights, key_biases = jax.random.split(key)
    num, fans = len(shapes), [math.prod(shape[1:]) for shape in shapes]
    weights = tuple(
        factor * (xavier_uniform(k, shape, dtype) if len(shape) == 2 or kernels == "xavier"
                  else fan_in_uniform(k, shape, fan, dtype))
        for k, shape, fan in zip(jax.random.split(key_weights, num), shapes, fans, strict=True)
    )  # fmt: skip
    if not biases:
        return weights, None
    keys = jax.random.split(key_biases, num)
    return weights, tuple(
        factor * fan_in_uniform(k, shape[:1], fan, dtype) for k, shape, fan in zip(keys, shapes, fans, strict=True)
    )


def near_balanced_layers(
    key: PRNGKeyArray, widths: Sequence[int], norm: float = 0.2, unbalancedness: float = 0.0, dtype: Any = None
) -> Layers:
    r"""$W_1, \ldots, W_n$ with product of Frobenius norm `norm`, balanced, or out of balance by a given amount.

    Balanced layers are those of paper D's Procedure 13 with a normal matrix A. For `unbalancedness` $\hat\epsilon > 0$
    normal noise is added to all entries, of the size at which the magnitude of Definition 30,
    $\max_j \|W_{j+1}^T W_{j+1} - W_j W_j^T\|_{nuclear}$, is $\hat\epsilon$; the norm of the product then moves as well.
    Some balanced point is within $n^{1.5} \sqrt{\hat\epsilon}$ (Lemma 31). The size is found on the host: not for jit.
    """
    dtype = check_dtype(dtype)
    key_balanced, key_noise = jax.random.split(key)
    layers = balanced_initialisation(key_balanced, tuple(widths), check_positive(norm, "norm"), dtype)
    if unbalancedness == 0:
        return layers
    wanted = check_positive(unbalancedness, "unbalancedness")
    if len(layers) < 2:
        raise ValueError(f"expected at least two layers to be out of balance, got {len(layers)}; add a hidden width")
    centre = [np.asarray(layer, np.float64) for layer in layers]
    keys = jax.random.split(key_noise, len(layers))
    noise = [np.asarray(jax.random.normal(k, w.shape, dtype), np.float64) for k, w in zip(keys, layers, strict=True)]

    def excess(size):
        moved = [w + size * n for w, n in zip(centre, noise, strict=True)]
        return max(np.linalg.norm(b.T @ b - a @ a.T, "nuc") for a, b in pairwise(moved)) - wanted

    reach = math.sqrt(wanted)
    while excess(reach) < 0:
        reach *= 2
    size = brentq(excess, 0.0, reach, xtol=1e-300, rtol=1e-14)
    return tuple(jnp.asarray(w + size * n, dtype) for w, n in zip(centre, noise, strict=True))
