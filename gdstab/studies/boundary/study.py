"""Where basins meet, drawn at the cost of their edges, and how rough these are: entropy, exponent, dimension."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import basins, boundaries, figures, records, updates
from gdstab._validate import check_box, check_count, check_loss, check_resolution, check_step_sizes
from gdstab.outcomes import Outcome
from gdstab.studies import building
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Boundary, describe
from gdstab.studies.phases import SAVING, Phase, enter

_BYTES_PER_CELL = 4  # outcome, label and level
_BYTES_OF_FIGURES = 20_000_000
_LARGEST_HALVING = 60
_MOST_SIGNS = 12


class Study(NamedTuple):
    """A complete run on disk, and its picture where it was made just now."""

    record: records.Record
    heatmap: boundaries.AdaptiveHeatmap | None


def run(options: Boundary, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Boundary(resolution=(256, 256), samples=4096, out=Path(folder)))
    >>> study.record.summary["uncertainty"]["exponent"] < 0.8, study.record.summary["uncertainty"]["fractal"]
    (True, True)
    """
    rule, stopping = updates.gradient_descent(), building.build_stopping(options)
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    plane = building.build_plane(options.plane, dim)
    # All of this is checked again where it is used; here so that a mistake leaves no directory behind.
    check_options(options, dim, dtype)
    basins.parse_plane(plane, dim)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    building.check_tolerances(options, loss, dim)
    pairs = 2 * options.samples * dim * dtype.itemsize
    check_memory(resolution=math.prod(options.resolution) * 2 * _BYTES_PER_CELL, samples=pairs)
    record = records.begin(
        options.out,
        building.configuration(options),
        bytes_needed=math.prod(options.resolution) * _BYTES_PER_CELL + _BYTES_OF_FIGURES,
        overwrite=options.overwrite,
        resume=options.resume,
    )
    if record.complete:
        return Study(record, None)
    label = _signs(options.signs) if options.signs else None
    common = {"box": options.box, "stopping": stopping, "plane": plane, "dim": dim, "dtype": dtype, "label": label}
    key_entropy, key_pairs = jax.random.split(jax.random.key(options.seed))
    enter(progress, "cells near edges")
    picture = boundaries.adaptive_heatmap(
        rule, loss, options.step_size, resolution=options.resolution, coarse=options.coarse, reach=options.reach,
        contrast=options.contrast, probe=options.probe, seed=options.seed, progress=progress, **common,
    )  # fmt: skip
    enter(progress, "entropy")
    entropy = boundaries.basin_entropy(picture.classes, options.entropy_side, key=key_entropy)
    enter(progress, "pairs of points")
    exponent = boundaries.uncertainty_exponent(
        rule, loss, options.step_size, key=key_pairs, scales=scales(options), samples=options.samples,
        progress=progress, **common,
    )  # fmt: skip
    summary = summarise(picture, entropy, exponent, options)
    enter(progress, SAVING)
    record.write_dataset(_dataset(picture, exponent).assign_attrs(provenance=summary["provenance"]))
    figures.save(
        figures.draw_boundary(picture, exponent, names(picture, options.signs)), record, note=describe(options)
    )
    return Study(record.finish(summary), picture)


def phases(options: Boundary) -> dict[str, Phase]:
    """What a run goes through; how many cells it computes is what it finds out."""
    pairs = 2 * max(options.samples, 0) * max(options.scales[1] - options.scales[0] + 1, 0)
    return {"cells near edges": Phase(4), "entropy": Phase(1), "pairs of points": Phase(4, pairs), SAVING: Phase(2)}


def check_options(options: Boundary, dim: int, dtype) -> None:
    """Refuse what cannot be run."""
    check_box(options.box, 2)
    check_step_sizes(options.step_size, dtype)
    boundaries.check_coarse(check_resolution(options.resolution, 2), options.coarse)
    check_count(options.samples, "samples")
    check_count(options.probe, "probe", least=0)
    check_count(options.reach, "reach")
    if options.contrast is not None:
        check_count(options.contrast, "contrast")
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


def _signs(signs: tuple[int, ...]) -> Callable:
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
    """What `summary.json` holds; null where something could not be found. `minima` counts cells."""
    converged = picture.outcome == Outcome.CONVERGED
    labels = {
        meaning: int(np.count_nonzero(converged & (picture.label == label)))
        for label, meaning in names(picture, options.signs).items()
    }
    return {
        "cells": picture.cells,
        "counts": picture.counts,
        "fractions": picture.fractions,
        "minima": labels,
        "lanes_computed": picture.lanes,
        "share_computed": picture.share_computed,
        "rounds": picture.rounds,
        "probes": picture.probes._asdict(),
        "boundary_cells": int(picture.boundary.size),
        "area": picture.area,
        "area_bracket": list(picture.area_bracket),
        "entropy": _entropy(entropy),
        "uncertainty": _uncertainty(exponent),
        "lane_steps": picture.lane_steps + exponent.lane_steps,
        "compile_seconds": picture.compile_seconds,
        "run_seconds": picture.run_seconds,
        "provenance": records.provenance(picture.source.tables[0].dtype, seed=options.seed),
    }


def _entropy(entropy: boundaries.BasinEntropy) -> dict:
    return {
        "basin_entropy": _number(entropy.entropy),
        "interval": _numbers(entropy.interval),
        "boundary_basin_entropy": _number(entropy.boundary_entropy),
        "boundary_interval": _numbers(entropy.boundary_interval),
        "boxes": entropy.boxes,
        "boundary_boxes": entropy.boundary_boxes,
        "straight_edge": entropy.straight_edge,
        "above_ln_2": entropy.fractal,
        "above_straight_edge": entropy.rough,
    }


def _uncertainty(exponent: boundaries.UncertaintyExponent) -> dict:
    used = exponent.scales[exponent.used]
    return {
        "exponent": _number(exponent.exponent),
        "interval": _numbers(exponent.interval),
        "boundary_dimension": _number(exponent.dimension),
        "dimension_interval": _numbers(exponent.dimension_interval),
        "fractal": exponent.fractal,
        "p_value": _number(exponent.p_value),
        "range_used": [float(used.min()), float(used.max())] if used.size else None,
        "scales_used": int(exponent.used.sum()),
        "scales": exponent.scales.tolist(),
        "share": exponent.share.tolist(),
        "hits": exponent.hits.tolist(),
        "undecided": exponent.undecided.tolist(),
        "precision_limited": exponent.precision_limited.tolist(),
        "any_precision_limited": bool(exponent.precision_limited.any()),
        "rounding_share": exponent.rounding_share,
        "saturation": exponent.saturation,
        "samples": exponent.samples,
    }


def _number(value: float) -> float | None:
    """JSON knows no nan."""
    return float(value) if math.isfinite(value) else None


def _numbers(values) -> list[float | None]:
    return [_number(value) for value in values]


def _dataset(picture: boundaries.AdaptiveHeatmap, exponent: boundaries.UncertaintyExponent):
    """The picture, and the shares of pairs that differ."""
    fields = ("share", "hits", "undecided", "used", "precision_limited")
    more = {name: ("scale", getattr(exponent, name)) for name in fields}
    return picture.to_xarray().assign(more).assign_coords(scale=exponent.scales)
