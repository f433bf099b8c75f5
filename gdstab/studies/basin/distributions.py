"""Where the initial points of a basin measure come from, and what share of them theory says must converge."""

import math

import jax

from gdstab import sampling
from gdstab._types import LossFn
from gdstab.studies.basin import Basin
from gdstab.studies.building import expand_box
from gdstab.theory.knowledge import Known, ball_volume, known

BOXES = ("box", "sobol", "stratified")
"""The distributions that are uniform in a box."""


def build_source(options: Basin, loss: LossFn, dim: int, dtype):
    """The source of initial points, and the volume of the set they are uniform in (None if there is no such set).

    Raises
    ------
    ValueError
        If the distribution does not fit the loss, say a box of as many axes as there are no parameters.

    Examples
    --------
    >>> import numpy as np
    >>> source, volume = build_source(Basin(samples=100, box=(-1.0, 1.0)), None, 3, np.float32)
    >>> source.num_points, volume
    (100, 8.0)
    """
    key, num = jax.random.key(options.seed), options.samples
    if options.distribution in BOXES:
        box = expand_box(options.box, dim)
        return _in_box(options, key, num, box, dtype), math.prod(high - low for low, high in box)
    if options.distribution == "ball":
        source = sampling.RandomSource.ball(key, num, dim, options.radius, dtype=dtype)
        return source, ball_volume(dim, options.radius)
    if options.distribution == "gaussian":
        return sampling.RandomSource.gaussian(key, num, dim, options.spread, dtype=dtype), None
    widths = _layer_widths(loss)
    if options.distribution == "xavier":
        return sampling.RandomSource.xavier(key, num, widths, dtype=dtype), None
    return sampling.RandomSource.balanced(key, num, widths, options.spread, dtype=dtype), None


def _in_box(options: Basin, key, num: int, box, dtype):
    if options.distribution == "sobol":
        return sampling.SobolSource(num, box, replicates=options.replicates, seed=options.seed, dtype=dtype)
    if options.distribution == "stratified":
        return sampling.StratifiedSource(key, num, box, _per_axis(options.cells, len(box)), dtype=dtype)
    return sampling.RandomSource.box(key, num, box, dtype=dtype)


def _layer_widths(loss: LossFn) -> tuple[int, ...]:
    """The widths, from input to output, of the linear network that the loss is one of."""
    widths = known(loss).widths
    if widths is None:
        raise ValueError(
            "layers are drawn for products of scalars, vectors and matrices, which this loss is not: choose another "
            "--distribution"
        )
    return widths


def exact_share(options: Basin, what: Known, dim: int, step_size: float) -> float | None:
    """The share of the initial points that converges to a minimum, where `theory.known` says it."""
    if what.product is None or options.distribution in {"xavier", "balanced"}:
        return None
    if options.distribution == "gaussian":
        return what.exact_share(step_size, spread=options.spread)
    if options.distribution == "ball":
        return what.exact_share(step_size, radius=options.radius)
    return what.exact_share(step_size, box=expand_box(options.box, dim))


def _per_axis(cells: tuple[int, ...], dim: int) -> tuple[int, ...]:
    if len(cells) not in {1, dim}:
        raise ValueError(f"--cells takes one number for all axes, or {dim} of them, but got {len(cells)}")
    return tuple((cells * dim)[:dim])
