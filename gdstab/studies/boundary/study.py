"""Where basins meet, drawn at the cost of their edges, and how rough these are: entropy, exponent, dimension."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import basins, boundaries, updates
from gdstab._types import LossFn
from gdstab._validate import check_box, check_step_sizes
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import building
from gdstab.studies.boundary import Boundary
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work

_BYTES_PER_CELL = 4  # outcome, label and level
_LARGEST_HALVING = 60
_MOST_SIGNS = 12


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    dim: int
    plane: Any
    stopping: StoppingRule
    needs: Needs


def prepare(options: Boundary) -> Setting:
    """Build and check everything."""
    (loss, dim, dtype), stopping = building.problem(options), building.build_stopping(options)
    plane = building.build_plane(options.plane, dim)
    # All of this is checked again where it is used; here so that a mistake leaves no directory behind.
    check_options(options, dim, dtype)
    basins.parse_plane(plane, dim)
    result, pairs = math.prod(options.resolution) * _BYTES_PER_CELL, 2 * options.samples * dim * dtype.itemsize
    return Setting(loss, dim, plane, stopping, Needs({"resolution": 3 * result, "samples": pairs}, result))


def check_options(options: Boundary, dim: int, dtype) -> None:
    """Refuse what cannot be run."""
    check_step_sizes(options.step_size, dtype)
    boundaries.check_coarse(options.resolution, options.coarse)
    if not 2 <= options.entropy_side <= min(options.resolution):
        raise ValueError(
            f"--entropy-side takes 2 cells up to the resolution, {min(options.resolution)}, but got "
            f"{options.entropy_side}"
        )
    first, last = options.scales
    if not (first >= -_LARGEST_HALVING and first + 3 <= last <= _LARGEST_HALVING):
        raise ValueError(
            f"--scales takes two numbers of halvings, the second larger by 3 at least and {_LARGEST_HALVING} at most, "
            f"but got {options.scales}"
        )
    if len(options.signs) > _MOST_SIGNS or any(not 0 <= i < dim for i in options.signs):
        raise ValueError(
            f"--signs takes up to {_MOST_SIGNS} indices of parameters, 0 to {dim - 1}, but got {options.signs}"
        )


def phases(options: Boundary) -> dict[str, Phase]:
    """What a run goes through; how many cells it computes is what it finds out."""
    pairs = 2 * max(options.samples, 0) * max(options.scales[1] - options.scales[0] + 1, 0)
    return {"cells near edges": Phase(4), "entropy": Phase(1), "pairs of points": Phase(4, pairs), SAVING: Phase(2)}


def measure(options: Boundary, setting: Setting, work: Work):
    """Draw the basins, then see how mixed small boxes are, and how many pairs of points end differently."""
    what = updates.gradient_descent(), setting.loss, options.step_size
    common = {
        "box": options.box,
        **picked(setting, "stopping", "plane", "dim"),
        "dtype": np.dtype(f"float{options.precision}"),
        "label": signs_of(options.signs) if options.signs else None,
        "progress": work.progress,
    }
    key_entropy, key_pairs = jax.random.split(jax.random.key(options.seed))
    work.enter("cells near edges")
    picture = boundaries.adaptive_heatmap(
        *what, resolution=options.resolution, coarse=options.coarse, reach=options.reach, contrast=options.contrast,
        probe=options.probe, seed=options.seed, **common,
    )  # fmt: skip
    work.enter("entropy")
    entropy = boundaries.basin_entropy(picture.classes, options.entropy_side, key=key_entropy)
    work.enter("pairs of points")
    exponent = boundaries.uncertainty_exponent(
        *what, key=key_pairs, scales=scales(options), samples=options.samples, **common
    )
    return _dataset(picture, exponent), summarise(picture, entropy, exponent, options)


def scales(options: Boundary) -> np.ndarray:
    """The distances of the pairs.

    >>> scales(Boundary(scales=(3, 6))).tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    first, last = options.scales
    return np.diff(check_box(options.box, 2)).min() * 0.5 ** np.arange(first, last + 1)


def names(picture: boundaries.AdaptiveHeatmap, signs: tuple[int, ...]) -> dict[int, str]:
    """What the labels mean that occur; none where there are no labels."""
    if picture.label is None:
        return {}
    found = np.unique(picture.label[picture.outcome == Outcome.CONVERGED])
    return {int(label): name(int(label), signs) for label in found}


def name(label: int, signs: tuple[int, ...]) -> str:
    """The signs that a label stands for.

    >>> name(2, (0, 3))
    'x0 <= 0, x3 > 0'
    """
    return ", ".join(f"x{i} {'>' if label >> place & 1 else '<='} 0" for place, i in enumerate(signs))


def signs_of(signs: tuple[int, ...]) -> Callable:
    """The label of an end point: one bit for each parameter, set where it is positive."""

    def label(theta):
        return sum((theta[i] > 0).astype(jnp.int32) << place for place, i in enumerate(signs))

    return label


def summarise(
    picture: boundaries.AdaptiveHeatmap,
    entropy: boundaries.BasinEntropy,
    exponent: boundaries.UncertaintyExponent,
    options: Boundary,
) -> dict:
    """What `summary.json` holds. `minima` counts cells."""
    converged = picture.outcome == Outcome.CONVERGED
    labels = {
        meaning: np.count_nonzero(converged & (picture.label == label))
        for label, meaning in names(picture, options.signs).items()
    }
    return {
        **picked(picture, "cells", "counts", "fractions", "share_computed", "rounds", "area", "area_bracket"),
        "minima": labels,
        "lanes_computed": picture.lanes,
        "probes": picture.probes._asdict(),
        "boundary_cells": picture.boundary.size,
        "entropy": _entropy(entropy),
        "uncertainty": _uncertainty(exponent),
        "lane_steps": picture.lane_steps + exponent.lane_steps,
        **picked(picture, "compile_seconds", "run_seconds"),
    }


def _entropy(entropy: boundaries.BasinEntropy) -> dict:
    return {
        **picked(entropy, "interval", "boundary_interval", "boxes", "boundary_boxes", "straight_edge"),
        "basin_entropy": entropy.entropy,
        "boundary_basin_entropy": entropy.boundary_entropy,
        "above_ln_2": entropy.fractal,
        "above_straight_edge": entropy.rough,
    }


def _uncertainty(exponent: boundaries.UncertaintyExponent) -> dict:
    used = exponent.scales[exponent.used]
    names = (
        "exponent", "interval", "dimension_interval", "fractal", "p_value", "scales", "share", "hits", "undecided",
        "precision_limited", "rounding_share", "saturation", "samples",
    )  # fmt: skip
    return {
        **picked(exponent, *names),
        "boundary_dimension": exponent.dimension,
        "range_used": [used.min(), used.max()] if used.size else None,
        "scales_used": exponent.used.sum(),
        "any_precision_limited": exponent.precision_limited.any(),
    }


def _dataset(picture: boundaries.AdaptiveHeatmap, exponent: boundaries.UncertaintyExponent):
    """The picture, the shares of pairs that differ, and the factor of the line through them."""
    fields = ("share", "hits", "undecided", "used", "precision_limited")
    more = {name: ("scale", getattr(exponent, name)) for name in fields}
    more["amplitude"] = ((), exponent.amplitude)
    return picture.to_xarray().assign(more).assign_coords(scale=exponent.scales)
