"""Synthetic regression: normal inputs, targets given by a teacher, a random network."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from gdstab._validate import check_count, check_dtype
from gdstab.data.whitening import whiten


@dataclasses.dataclass(frozen=True)
class Regression:
    """Inputs and targets, one row per sample: what `NetworkRisk(model, ..., loss="mse")` takes."""

    inputs: np.ndarray
    """[samples, dim]."""
    targets: np.ndarray
    """[samples, outputs]."""
    teacher: tuple[np.ndarray, ...]
    r"""The weights $(W_1, \ldots)$ of the network that made the targets."""

    @property
    def correlation(self) -> np.ndarray:
        r"""$\Lambda_{yx} = \frac{1}{m} \sum_i y_i x_i^T$, [outputs, dim] (paper D, Section 5)."""
        return self.targets.T @ self.inputs / len(self.inputs)

    def unit_correlation(self) -> "Regression":
        r"""Targets, and the teacher's last layer, scaled so that $\|\Lambda_{yx}\|_F = 1$, as Section 5 assumes."""
        norm = np.linalg.norm(self.correlation.astype(np.float64)).astype(self.targets.dtype)
        if not norm > 0:
            raise ValueError("expected targets that depend on the inputs, got a correlation of zero; draw others")
        return dataclasses.replace(
            self, targets=self.targets / norm, teacher=(*self.teacher[:-1], self.teacher[-1] / norm)
        )


def linear_teacher(
    key: PRNGKeyArray, num: int, dim: int, outputs: int = 1, *, rank: int | None = None, noise: float = 0.0,
    whitened: bool = False, dtype: Any = None,
) -> Regression:  # fmt: skip
    r"""Targets $y = W x + \epsilon$ with a normal W, whose entries have variance 1/dim, cut to a rank if one is given.

    Parameters
    ----------
    num, dim, outputs
        Numbers of samples, of entries of each, and of targets.
    noise
        Standard deviation of $\epsilon$.
    whitened
        Whiten the inputs, which are standard normal otherwise, before they are shown to the teacher: without noise
        $\Lambda_{yx} = W$ then.

    Examples
    --------
    >>> import jax
    >>> data = linear_teacher(jax.random.key(0), 50, 4, whitened=True)
    >>> bool(np.allclose(data.correlation, data.teacher[0], atol=1e-5))
    True
    """
    key_map, key_data, key_noise = jax.random.split(key, 3)
    shape = check_count(outputs, "outputs"), check_count(dim, "dim")
    matrix = _normal(key_map, shape) / math.sqrt(dim)
    if rank is not None:
        if check_count(rank, "rank") > min(shape):
            raise ValueError(f"rank: expected at most {min(shape)}, the smaller side of the map, got {rank}; lower it")
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
        matrix = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    inputs = _inputs(key_data, num, dim, whitened)
    return _taught(inputs, inputs @ matrix.T, (matrix,), key_noise, noise, dtype)


def relu_teacher(
    key: PRNGKeyArray, num: int, dim: int, neurons: int, outputs: int = 1, *, noise: float = 0.0,
    whitened: bool = False, dtype: Any = None,
) -> Regression:  # fmt: skip
    r"""Targets $y = V \max\{W x, 0\} + \epsilon$, entries of W of variance 2/dim and of V of variance 1/neurons.

    All arguments but `neurons`, the number of rows of W, are those of `linear_teacher`.

    >>> import jax
    >>> relu_teacher(jax.random.key(0), 20, 3, neurons=2).targets.shape
    (20, 1)
    """
    key_first, key_last, key_data, key_noise = jax.random.split(key, 4)
    first = _normal(key_first, (check_count(neurons, "neurons"), check_count(dim, "dim"))) * math.sqrt(2 / dim)
    last = _normal(key_last, (check_count(outputs, "outputs"), neurons)) / math.sqrt(neurons)
    inputs = _inputs(key_data, num, dim, whitened)
    targets = np.maximum(inputs @ first.T, 0) @ last.T
    return _taught(inputs, targets, (first, last), key_noise, noise, dtype)


def _normal(key, shape):
    return np.asarray(jax.random.normal(key, shape, float), np.float64)


def _inputs(key, num, dim, whitened):
    drawn = _normal(key, (check_count(num, "num"), dim))
    return whiten(drawn).inputs if whitened else drawn


def _taught(inputs, targets, teacher, key, noise, dtype):
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise: expected a standard deviation of at least 0, got {noise}; pass 0 for none")
    dtype = check_dtype(dtype)
    noisy = targets + noise * _normal(key, targets.shape)
    return Regression(inputs.astype(dtype), noisy.astype(dtype), tuple(weight.astype(dtype) for weight in teacher))
