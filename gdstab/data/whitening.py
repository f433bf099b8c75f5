"""Whitening: inputs whose second moments are the identity matrix."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gdstab._numerics import rounding
from gdstab._validate import check_count


class Whitening(NamedTuple):
    """Whitened inputs, and the affine map that made them: `inputs = (raw - mean) @ matrix`."""

    inputs: np.ndarray
    """[samples, components]."""
    matrix: np.ndarray
    """[features, components]."""
    mean: np.ndarray
    """What was subtracted, [features]; zeros unless asked for."""


def whiten(inputs: ArrayLike, *, centre: bool = False, components: int | None = None) -> Whitening:
    r"""Turn inputs, **one row per sample**, into ones with $\frac{1}{m} \sum_i x_i x_i^T = I$ to rounding.

    That is the uncentred covariance of paper D, Section 5; for $X X^T = I$, as papers A and B have it, divide by
    $\sqrt m$. With $X = U S V^T$, samples as rows, the answer is $\sqrt m\,U V^T$, of all whitened inputs the nearest
    to X (ZCA), by the matrix $\sqrt m\,V S^{-1} V^T$. It is made of orthonormal factors and not by a product with
    that matrix, so that bad conditioning costs it no digit.

    Parameters
    ----------
    inputs
        [samples, ...]; further axes are flattened.
    centre
        Whether to subtract the mean first: then the covariance itself is the identity.
    components
        Keep that many leading principal directions, as coordinates: $\sqrt m\,U_r$, with the matrix
        $\sqrt m\,V_r S_r^{-1}$. For data that do not span all directions, such as images with an edge always black.

    Raises
    ------
    ValueError
        If the inputs span fewer directions than asked for: nothing scales a missing direction to 1.

    Examples
    --------
    >>> white = whiten([[1.0, 0.0], [1.0, 1.0], [2.0, 3.0]]).inputs
    >>> bool(np.allclose(white.T @ white / 3, np.eye(2)))
    True
    """
    given = np.asarray(inputs)
    if given.ndim < 2 or given.size == 0 or not np.issubdtype(given.dtype, np.number):
        raise ValueError(
            f"expected real inputs [samples, features], got {given.dtype} of shape {given.shape}; one row per sample"
        )
    if not np.isfinite(given).all():
        raise ValueError("expected finite inputs, got inf or NaN; clean the data")
    dtype = given.dtype if np.issubdtype(given.dtype, np.floating) else np.float64
    rows = given.reshape(len(given), -1).astype(np.float64)
    mean = rows.mean(axis=0) if centre else np.zeros(rows.shape[1])
    mean = mean + (rows - mean).mean(axis=0) if centre else mean  # a sum of many rounds more than its terms
    left, sizes, right = np.linalg.svd(rows - mean, full_matrices=False)
    # Inputs come rounded, whatever they are computed with: that alone moves singular values by eps / 2 of all of them.
    came = 2 * float(np.finfo(dtype).eps) * np.linalg.norm(rows)
    rank = int((sizes > max(rounding(rows.shape, np.float64) * sizes[0], came)).sum())
    wanted = rows.shape[1] if components is None else check_count(components, "components")
    if wanted > rank:
        raise ValueError(
            f"expected inputs that span {wanted} directions, got {len(rows)} samples of rank {rank} with "
            f"{rows.shape[1]} features; pass components={rank} or fewer, more samples, or drop constant features"
        )
    root = np.sqrt(len(rows))
    left, scales, right = root * left[:, :wanted], root / sizes[:wanted], right[:wanted]
    turned = (left, right.T * scales) if components is not None else (left @ right, (right.T * scales) @ right)
    return Whitening(*(array.astype(dtype) for array in (*turned, mean)))
