"""A heatmap, what it converged to, and how it agrees with the exact basin."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gdstab import basins, stability, theory, updates
from gdstab._types import LossFn
from gdstab._validate import check_box, check_resolution, check_step_sizes
from gdstab.outcomes import StoppingRule
from gdstab.studies import building, labels
from gdstab.studies.heatmap import Heatmap, selfcheck
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.work import Needs, Work

_BYTES_PER_CELL = 2 * (1 + 4)  # verdict and count, in the parts and in the result
_BYTES_PER_LABEL = 2 * 4


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    dim: int
    plane: Any
    stopping: StoppingRule
    label: Callable | basins.Found | None
    needs: Needs


def prepare(options: Heatmap) -> Setting:
    """Build and check everything."""
    (loss, dim, dtype), stopping = building.problem(options), building.build_stopping(options)
    plane = building.build_plane(options.plane, dim)
    # All of this is checked again where it is used; here so that a mistake leaves no directory behind.
    check_box(options.box, 2)
    check_step_sizes(options.step_size, dtype)
    basins.parse_plane(plane, dim)
    cells = int(np.prod(check_resolution(options.resolution, 2), dtype=object))
    label = labels.build_label(options, loss, dim)
    more = 0 if label is None else _BYTES_PER_LABEL
    needs = Needs({"resolution": (16 + more) * cells}, cells * (_BYTES_PER_CELL + more))
    return Setting(loss, dim, plane, stopping, label, needs)


def phases(options: Heatmap) -> dict[str, Phase]:
    """What a run goes through."""
    cells = math.prod(max(side, 0) for side in options.resolution)
    return {"orbits": Phase(10, cells), "kinds of critical points": Phase(1), SAVING: Phase(2)}


def measure(options: Heatmap, setting: Setting, work: Work):
    """Run every cell; then tell apart what the converged ones converged to."""
    rule, dtype = updates.gradient_descent(), np.dtype(f"float{options.precision}")
    finished, keep = work.parts(basins.Patch.from_arrays)
    work.enter("orbits")
    result = basins.heatmap(
        rule, setting.loss, options.step_size, box=options.box, resolution=options.resolution,
        stopping=setting.stopping, plane=setting.plane, dim=setting.dim, dtype=dtype, label=setting.label,
        progress=work.progress, finished=finished, on_patch=lambda patch: keep(patch.arrays()),
    )  # fmt: skip
    work.enter("kinds of critical points")
    kinds = basins.refine(
        rule, setting.loss, result, stopping=setting.stopping, classify=stability.classify, kinds=stability.Kind
    )
    summary = summarise(result, kinds, hyperbola_in(options, setting.loss))
    if result.attractors is not None:
        summary["attractors"] = labels.summarise(result.attractors, setting.loss)
    return result.to_xarray(), summary


def hyperbola_in(options, loss: LossFn) -> theory.Product | None:
    """The numbers of c (a - xy)^2, a > 0, whose basin has a closed form, where a plane shows its two parameters."""
    both = options.plane in {(), (0, 1), (1, 0)}  # the loss is symmetric in its parameters
    return theory.known(loss).hyperbola if both else None


def summarise(result: basins.Heatmap, kinds: basins.Kinds, product: theory.Product | None) -> dict:
    """What `summary.json` holds."""
    known = selfcheck.UNKNOWN if product is None else selfcheck.compare(result, kinds, product.target, product.scale)
    return {
        "cells": result.cells,
        "counts": result.counts,
        "fractions": result.fractions,
        "kinds": kinds.counts,
        "area": result.area,
        "area_bracket": list(result.area_bracket),
        "theory": known,
        "lane_steps": result.lane_steps,
        "compile_seconds": result.compile_seconds,
        "run_seconds": result.run_seconds,
    }
