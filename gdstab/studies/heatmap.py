"""The study behind Figure 1(a) of paper A: a heatmap, what it converged to, and how it agrees with the exact basin."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gdstab import basins, curvature, ensembles, figures, records, sampling, stability, updates
from gdstab._numerics import tolerance
from gdstab._validate import check_box, check_loss, check_resolution, check_step_sizes
from gdstab.minima.manifold import correct
from gdstab.studies import building, selfcheck
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Heatmap, Scalar, describe
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.theory import scalar

_BYTES_PER_CELL = 2 * (1 + 4)  # verdict and count, in the parts and in the result
_BYTES_OF_FIGURES = 20_000_000
_MOST_PARAMETERS, _SEEKERS, _CORRECTIONS = 32, 40, 30  # of the search for minima in the plane


class Study(NamedTuple):
    """A complete run on disk, and its heatmap where it was made just now."""

    record: records.Record
    heatmap: basins.Heatmap | None


def run(options: Heatmap, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Heatmap(resolution=(20, 20), max_steps=1000, out=Path(folder)))
    >>> study.record.summary["kinds"]
    {'minimum': 114, 'strict_saddle': 8, 'degenerate': 0}
    """
    rule, stopping = updates.gradient_descent(), building.build_stopping(options)
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    plane = building.build_plane(options.plane, dim)
    # All of this is checked again where it is used; here so that a mistake leaves no directory behind.
    check_box(options.box, 2)
    check_step_sizes(options.step_size, dtype)
    basins.parse_plane(plane, dim)
    cells = int(np.prod(check_resolution(options.resolution, 2), dtype=object))
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    building.check_tolerances(options, loss, dim)
    check_memory(resolution=16 * cells)
    record = records.begin(
        options.out,
        building.configuration(options),
        bytes_needed=cells * _BYTES_PER_CELL + _BYTES_OF_FIGURES,
        overwrite=options.overwrite,
        resume=options.resume,
    )
    if record.complete:
        return Study(record, None)
    enter(progress, "orbits")
    result = basins.heatmap(
        rule, loss, options.step_size, box=options.box, resolution=options.resolution, stopping=stopping, plane=plane,
        dim=dim, dtype=dtype, progress=progress, finished=_finished(record), on_patch=_keeper(record),
    )  # fmt: skip
    enter(progress, "kinds of critical points")
    kinds = basins.refine(rule, loss, result, stopping=stopping, classify=stability.classify, kinds=stability.Kind)
    summary = summarise(result, kinds, options)
    summary["run_seconds"] += record.seconds_before()
    enter(progress, SAVING)
    record.write_dataset(result.to_xarray().assign_attrs(provenance=summary["provenance"]))
    figures.save(figures.draw_heatmap(result, overlay(options)), record, note=describe(options))
    return Study(record.finish(summary), result)


def phases(options: Heatmap) -> dict[str, Phase]:
    """What a run goes through."""
    cells = math.prod(max(side, 0) for side in options.resolution)
    return {"orbits": Phase(10, cells), "kinds of critical points": Phase(1), SAVING: Phase(2)}


def summarise(result: basins.Heatmap, kinds: basins.Kinds, options: Heatmap) -> dict:
    """What `summary.json` holds."""
    theory = selfcheck.UNKNOWN
    if exactly_known(options):
        theory = selfcheck.compare(result, kinds, options.loss.target, options.loss.scale)
    return {
        "cells": result.cells,
        "counts": result.counts,
        "fractions": result.fractions,
        "kinds": kinds.counts,
        "area": result.area,
        "area_bracket": list(result.area_bracket),
        "theory": theory,
        "lane_steps": result.lane_steps,
        "compile_seconds": result.compile_seconds,
        "run_seconds": result.run_seconds,
        "provenance": records.provenance(result.source.tables[0].dtype),
    }


def exactly_known(options) -> bool:
    """Whether a plane shows the two parameters of c (a - xy)^2 with a > 0, whose basin has a closed form."""
    loss = options.loss
    both = options.plane in {(), (0, 1), (1, 0)}  # the loss is symmetric in its parameters
    return isinstance(loss, Scalar) and loss.depth == 2 and loss.target > 0 and both


def overlay(options: Heatmap) -> figures.Overlay:
    """What is known in the plane: minima, their stable part, and the trapping ellipse if it is asked for."""
    if not exactly_known(options):
        places, stable = minima_in_plane(options)
        return figures.Overlay(spots=places[~stable], stable_spots=places[stable])
    target, scale = options.loss.target, options.loss.scale
    minima, stable = hyperbola(options.step_size, options.box, target, scale)
    edge = scalar.ellipse_curve(options.step_size, target, scale) if options.ellipse else np.empty((0, 2))
    return figures.Overlay(minima, stable, [edge] if len(edge) else [])


def hyperbola(step_size: float, box, target: float, scale: float, num: int = 500) -> tuple[list, list]:
    """Both branches of xy = target across the box, and their stable parts, as polylines."""
    reach = max(abs(end) for side in box for end in side)
    stable = scalar.stable_minima(step_size, target, scale)
    arcs = []
    for low, high in ((target / reach, reach), (stable.low, stable.high)):
        x = np.geomspace(low, high, num) if low < high else np.empty(0)
        branch = np.stack([x, target / x], axis=-1)
        arcs.append([branch, -branch] if len(branch) else [])
    return arcs[0], arcs[1]


def minima_in_plane(options: Heatmap) -> tuple[np.ndarray, np.ndarray]:
    """Minima in the plane `[found, 2]`, by Gauss and Newton's method from a grid, and whether each is stable.

    None where the loss does not say its `residual`, or has many parameters.
    """
    loss, dim = building.build_loss(options.loss)
    nothing = np.zeros((0, 2)), np.zeros(0, bool)
    if not hasattr(loss, "residual") or dim > _MOST_PARAMETERS:
        return nothing
    origin, directions, _ = basins.parse_plane(building.build_plane(options.plane, dim), dim)
    origin, directions = jnp.asarray(origin), jnp.asarray(directions)

    def place(s):
        return origin + jnp.matmul(s, directions, precision="highest")

    def seek(start):
        residual = eqx.Partial(lambda s: loss.residual(place(s)).ravel())
        end = lax.fori_loop(0, _CORRECTIONS, lambda _, s: correct(residual, s), start)
        return end, jnp.linalg.norm(residual(end)), curvature.sharpness(loss, place(end))

    starts = sampling.grid(options.box, (_SEEKERS, _SEEKERS), dtype=origin.dtype)
    ends, off, sharpness = ensembles.map_points(seek, np.asarray(starts))
    (left, right), (bottom, top) = options.box
    inside = (ends > (left, bottom)).all(axis=1) & (ends < (right, top)).all(axis=1)
    found = inside & (off <= tolerance(off.dtype)) & np.isfinite(sharpness)
    return ends[found], options.step_size * sharpness[found] < 2


def _keeper(record: records.Record) -> Callable[[basins.Patch], None]:
    """Write every new patch down; the number of a part is its place in the order."""
    numbers = iter(range(len(list(record.parts())), 2**31))
    return lambda patch: record.commit(next(numbers), **patch._asdict())


def _finished(record: records.Record) -> list[basins.Patch]:
    """The patches of an interrupted run."""
    parts = [{name: array if array.ndim else int(array) for name, array in part.items()} for part in record.parts()]
    return [basins.Patch(**part) for part in parts]
