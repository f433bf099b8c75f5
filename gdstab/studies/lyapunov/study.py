"""How fast neighbouring orbits part: exponents against the step size and over initial points, and what orbits do."""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import basins, losses, lyapunov, sampling, theory
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.basins import collapse
from gdstab.outcomes import StoppingRule, anchor_stride
from gdstab.sampling import GridSource
from gdstab.studies import building
from gdstab.studies.building import under_descent
from gdstab.studies.lyapunov import Lyapunov
from gdstab.studies.options import parse_range
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work
from gdstab.updates import UpdateRule, gradient_descent

_SMOOTH = {"descent", "heavy-ball", "nesterov"}
"""Rules whose map is smooth where it converges, so that a minimum has exponents."""

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Setting(NamedTuple):
    """What the options stand for."""

    rule: UpdateRule
    loss: LossFn
    product: theory.Product | None  # of plain descent on c (a - xy)^2, whose bounded orbits collapse onto x = y
    step_sizes: np.ndarray
    box: tuple
    source: GridSource  # of the heatmap
    axes: tuple[str, str]
    stopping: StoppingRule
    needs: Needs


def prepare(options: Lyapunov) -> Setting:
    """Build and check everything."""
    rule = building.build_rule(options)
    loss, dim, dtype = building.problem(options)
    step_sizes = np.atleast_1d(check_step_sizes(parse_range(options.step_sizes), dtype))
    check_numbers(options, dtype)
    stopping = building.build_stopping(options)
    box = building.expand_box(options.box, dim)
    rule.init(jnp.zeros(dim, dtype), 1.0)
    origin, directions, axes = basins.parse_plane(building.build_plane(options.plane, dim), dim)
    lanes, cells = len(step_sizes) * options.starts, math.prod(options.resolution)
    needs = Needs(
        {"starts": lanes * (2 * dim * dtype.itemsize + 25), "resolution": 3 * cells * dtype.itemsize},
        lanes * ((dim + 2) * dtype.itemsize + 5) + cells * dtype.itemsize,
    )
    source = GridSource(options.map_box, options.resolution, origin, directions, dtype)
    return Setting(rule, loss, under_descent(options, loss), step_sizes, box, source, axes, stopping, needs)


def check_numbers(options: Lyapunov, dtype: np.dtype) -> None:
    """Refuse step sizes, and numbers of updates, that nothing could be done with."""
    check_step_sizes(options.map_step_size, dtype)
    least = anchor_stride(options.max_period) + 2 * options.max_period
    if options.max_steps < least:
        raise ValueError(
            f"expected at least {least} updates to look for cycles up to period {options.max_period}, got --max-steps "
            f"{options.max_steps}; raise it, or lower --max-period"
        )
    lyapunov.plan(options.num_steps, options.transient)
    lyapunov.plan(options.line_steps)
    lyapunov.plan(options.map_steps, 0, blocks=8)


def phases(options: Lyapunov) -> dict[str, Phase]:
    """What a run goes through."""
    lanes = max(options.starts, 0) * len(parse_range(options.step_sizes))
    return {"orbits": Phase(8, lanes), "heatmap": Phase(2), "symmetric line": Phase(2), SAVING: Phase(2)}


def measure(options: Lyapunov, setting: Setting, work: Work):
    """Exponents of random points at every step size; of the cells of a rectangle; on the line x = y."""
    begin = time.perf_counter()
    work.enter("orbits")
    points = sampling.box(jax.random.key(options.seed), options.starts, setting.box, dtype=setting.step_sizes.dtype)
    found = basins.regimes(
        setting.rule, setting.loss, points, setting.step_sizes, stopping=setting.stopping, num_steps=options.num_steps,
        transient=options.transient, converged=options.rule in _SMOOTH, progress=work.progress,
    )  # fmt: skip
    work.enter("heatmap")
    field, _ = basins.exponents(
        setting.rule, setting.loss, setting.source, options.map_step_size, options.map_steps,
        escape_radius=options.escape_radius,
    )  # fmt: skip
    field = setting.source.to_grid(field)
    work.enter("symmetric line")
    on_line = symmetric_line(options, setting)
    summary = summarise(options, setting.product, found, field, on_line)
    return dataset_of(options, setting.axes, found, field), summary | {"seconds": time.perf_counter() - begin}


def symmetric_line(options: Lyapunov, setting: Setting) -> collapse.Line | None:
    """Exponents on x = y where orbits there are bounded, NaN beyond; None where there is no such line."""
    product, step_sizes = setting.product, setting.step_sizes
    inside = np.zeros(len(step_sizes), bool) if product is None else product.reduced(step_sizes) <= 2
    if not inside.any():
        return None
    loss = losses.ScalarProduct(target=product.target, scale=product.scale)
    found = collapse.line(
        gradient_descent(), loss, step_sizes[inside], starts=options.line_starts, num_steps=options.line_steps,
        seed=options.seed, confidence=options.confidence, dtype=step_sizes.dtype,
    )  # fmt: skip
    whole = [np.full(len(step_sizes), np.nan) for _ in found]
    for values, part in zip(whole, found, strict=True):
        values[inside] = part
    return collapse.Line(*whole)


def summarise(
    options: Lyapunov, product: theory.Product | None, found: basins.Regimes, field: np.ndarray,
    on_line: collapse.Line | None,
) -> dict:  # fmt: skip
    """What `summary.json` holds: `rows`, one per step size, and the heatmap in figures."""
    rows = found.rows(options.confidence)
    if product is not None:
        for i, row in enumerate(rows):
            row["reduced"] = reduced = product.reduced(row["step_size"])
            row["closed_form"] = theory.symmetric_line.largest_exponent(reduced) if reduced <= 2 else None
            if on_line is not None and np.isfinite(on_line.along[i]):
                row.update(collapse.line_row(on_line, i))
        for row, extra in zip(rows, collapse.collapsed(found, options.confidence), strict=True):
            row.update(extra)
    known = field[np.isfinite(field)]
    return {
        **picked(options, "starts", "confidence"),
        "rows": rows,
        "map": {
            "step_size": options.map_step_size,
            "steps": options.map_steps,
            "cells": field.size,
            "bounded": np.isfinite(field).sum() + np.isneginf(field).sum(),
            "positive": (known > 0).sum(),
            "quantiles": dict(zip(_QUANTILES, np.quantile(known, _QUANTILES), strict=True)) if known.size else None,
        },
        "lane_steps": found.lane_steps + field.size * options.map_steps,
        **picked(found, "compile_seconds", "run_seconds"),
    }


def dataset_of(options: Lyapunov, axes: tuple[str, str], found: basins.Regimes, field: np.ndarray) -> xr.Dataset:
    """Of every orbit, and of every cell of the heatmap."""
    meaning = " ".join(f"{kind.value}:{kind.name.lower()}" for kind in basins.Regime)
    dims = ("step_size", "sample")
    data = {
        "exponent": (dims, found.exponent, {"long_name": "largest Lyapunov exponent per update"}),
        "standard_error": (dims, found.standard_error, {"long_name": "its standard error, from batch means"}),
        "regime": (dims, found.regime, {"long_name": "what the orbit does", "flag_meanings": meaning}),
        "period": (dims, found.period, {"long_name": "its period, 0 if it has none"}),
        "theta": ((*dims, "coordinate"), np.asarray(found.theta), {"long_name": "where it was last"}),
        "map_exponent": (axes, field, {"long_name": f"exponent over the first {options.map_steps} updates"}),
    }
    sides = zip(options.map_box, options.resolution, strict=True)
    centres = [np.asarray(sampling.grid((side,), (n,), dtype=field.dtype))[:, 0] for side, n in sides]
    coords = {"step_size": found.step_sizes, **dict(zip(axes, centres, strict=True))}
    return xr.Dataset(data, coords, {"map_step_size": options.map_step_size})
