"""What is observed of the orbits of `gdstab bifurcation`, where they start, and which range of it is drawn."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import sampling
from gdstab._numerics import sum_squares
from gdstab._types import LossFn
from gdstab.studies.bifurcation import Bifurcation

PILOT = 33, 16
"""Step sizes and starts that show what range to draw."""

_SAME = 1e-6  # of their size, or of what is usual: values that are nearer to each other are drawn as one
_ROUNDING = 64  # the same in units of rounding, where that is more


def draw_starts(options: Bifurcation, dim: int, dtype) -> np.ndarray:
    """Random initial points `[starts, dim]`, on the diagonal or in the box."""
    axes = 1 if options.line == "diagonal" else dim
    points = sampling.box(jax.random.key(options.seed), options.starts, (options.box,) * axes, dtype=dtype)
    return np.broadcast_to(np.asarray(points), (options.starts, dim)).copy()


def observer(name: str, loss: LossFn) -> Callable:
    """What is drawn, as a function of the parameters."""
    return _OBSERVERS[name] if name in _OBSERVERS else lambda theta: loss(theta)  # noqa: PLW0108 (must be hashable)


def _diagonal(theta):
    return jnp.sum(theta) * jnp.asarray(theta.size**-0.5, theta.dtype)


def _first(theta):
    return theta[0]


def _norm(theta):
    return jnp.sqrt(sum_squares(theta))


_OBSERVERS = {"diagonal": _diagonal, "first": _first, "norm": _norm}


def seen_range(
    look: Callable, observe: Callable, step_sizes: np.ndarray, starts: np.ndarray, bins: int
) -> tuple[float, float]:
    """What some orbits at some of the step sizes show, and a little more on both sides.

    `look(step_sizes, starts)` is an orbit diagram that keeps its values.

    Raises
    ------
    ValueError
        If all of them escape.
    """
    rows = np.unique(np.linspace(0, len(step_sizes) - 1, PILOT[0]).round().astype(int))
    starts = starts[: PILOT[1]]
    values = look(step_sizes[rows], starts).values
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(
            "every orbit escapes at every step size that was tried; lower --step-sizes, move --box, or raise "
            "--escape-radius"
        )
    usual = float(np.median(np.abs(np.asarray(jax.vmap(observe)(starts), float))))
    same = max(_SAME, _ROUNDING * float(np.finfo(starts.dtype).eps))
    return drawn_range(float(values.min()), float(values.max()), bins, usual if np.isfinite(usual) else 0.0, same)


def drawn_range(low: float, high: float, bins: int, usual: float = 0.0, same: float = _SAME) -> tuple[float, float]:
    """A little more than from low to high on both sides; where they agree, be it in 0, much more, around a bin.

    Orbits that settle on one value differ by rounding, and by what is left of their transients: structure of neither.
    Both are small against that value, or against what is `usual` for a start.

    >>> drawn_range(-1.0, 1.5, bins=4), np.round(drawn_range(0.5, 0.5 + 2e-16, bins=5), 6).tolist()
    ((-1.1, 1.6), [0.48, 0.52])
    >>> drawn_range(-1e-90, 1e-80, bins=4, usual=1.0)  # it lies in the third bin
    (-0.05, 0.03)
    """
    size = max(abs(low), abs(high), usual)
    if high - low > same * size:
        margin = 0.04 * (high - low)
        return low - margin, high + margin
    width = 0.08 * (size or 1.0)
    start = (low + high) / 2 - width * (bins // 2 + 0.5) / bins
    return start, start + width
