"""What converged orbits converged to: minima by their loss, the others by a second look at where they ended."""

from collections.abc import Callable

import equinox as eqx
import numpy as np

from gdstab import ensembles
from gdstab._types import LossFn
from gdstab.outcomes import StoppingRule
from gdstab.updates import UpdateRule

_BATCHES = 2**9, 2**15
"""Orbits that are looked at together: two shapes only, because every further one is compiled for a second."""


def at_floor(values: np.ndarray, loss: LossFn, loss_tol: float | None) -> np.ndarray:
    """Whether a loss is within `loss_tol` of its floor: as the stopping rule asks it, in the dtype of the values.

    A floor that the loss does not declare proves nothing: where it ends near 0 its Hessian has to be looked at.

    >>> from gdstab.losses import DoubleWell
    >>> at_floor(np.array([1e-13, 1e-3]), DoubleWell(), 1e-12).tolist()
    [True, False]
    >>> at_floor(np.array([1e-13, 1e-3]), lambda theta: theta[0] ** 2 - theta[1] ** 4, 1e-12).tolist()
    [False, False]
    """
    if loss_tol is None or not hasattr(loss, "loss_floor"):
        return np.zeros(values.shape, bool)
    floor = values.dtype.type(float(loss.loss_floor))
    return values - floor <= values.dtype.type(loss_tol)


def classify_ends(
    rule: UpdateRule, loss: LossFn, take: Callable, step_sizes, *, stopping: StoppingRule, classify: Callable
) -> tuple[np.ndarray, np.ndarray]:
    """Run orbits again, to the same end, and classify where they ended.

    Parameters
    ----------
    take
        `take(rows)` gives the initial points of some lanes, so that they need not all be in memory.
    step_sizes
        One for each lane, `[lanes]`.
    classify
        `classify(loss, theta) -> (kind, (n_minus, n_zero, n_plus))`, such as `stability.classify`.

    Returns
    -------
    The kind `[lanes]`, int8, and the inertia `[lanes, 3]`, int32, of each.
    """
    total = len(step_sizes)
    batch = _BATCHES[0] if total <= _BATCHES[0] else _BATCHES[1]
    kinds, inertias = [np.zeros(0, np.int8)], [np.zeros((0, 3), np.int32)]
    for start in range(0, total, batch):
        rows = np.minimum(np.arange(start, start + batch), total - 1)
        used = slice(min(batch, total - start))
        ends = ensembles.run(rule, loss, take(rows), step_sizes[rows], stopping, product=False, keep=("theta",)).theta
        kind, inertia = ensembles.map_points(_Classifier(classify, loss), ends)
        kinds.append(np.asarray(kind, np.int8)[used])
        inertias.append(np.stack(inertia, axis=-1).astype(np.int32)[used])
    return np.concatenate(kinds), np.concatenate(inertias)


class _Classifier(eqx.Module):
    """A function of one point that compares equal to the next of its kind, so that it compiles once."""

    classify: Callable = eqx.field(static=True)
    loss: LossFn

    def __call__(self, theta):
        return self.classify(self.loss, theta)
