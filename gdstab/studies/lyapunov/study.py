"""How fast neighbouring orbits part: exponents against the step size and over initial points, and what orbits do."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import basins, figures, lyapunov, records, sampling
from gdstab._validate import check_box, check_count, check_loss, check_resolution, check_step_sizes
from gdstab.estimators.intervals import check_confidence
from gdstab.outcomes import StoppingRule, anchor_stride
from gdstab.sampling import GridSource
from gdstab.studies import building
from gdstab.studies.building import expand_box
from gdstab.studies.lyapunov import collapse
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Lyapunov, Scalar, describe, parse_range
from gdstab.studies.phases import SAVING, Phase, enter

_SMOOTH = {"descent", "heavy-ball", "nesterov"}
"""Rules whose map is smooth where it converges, so that a minimum has exponents."""


class Study(NamedTuple):
    """A complete run on disk, and its regimes where it was made just now."""

    record: records.Record
    regimes: basins.Regimes | None


class Setting(NamedTuple):
    """What the options stand for."""

    rule: Callable
    loss: Callable
    step_sizes: np.ndarray
    box: tuple
    plane: tuple
    stopping: StoppingRule


def run(options: Lyapunov, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Lyapunov(step_sizes="0.7,0.8", starts=40, resolution=(20, 20), out=Path(folder)))
    >>> [row["shares"]["chaotic"]["value"] for row in study.record.summary["rows"]]
    [1.0, 1.0]
    """
    begin = time.perf_counter()
    dtype = building.check_precision(options.precision)
    setting = prepare(options, dtype)
    lanes = len(setting.step_sizes) * options.starts
    cells = math.prod(options.resolution)
    dim = len(setting.box)
    check_memory(starts=lanes * (2 * dim * dtype.itemsize + 25), resolution=3 * cells * dtype.itemsize)
    record = records.begin(
        options.out, building.configuration(options), overwrite=options.overwrite, resume=options.resume
    )
    if record.complete:
        return Study(record, None)
    enter(progress, "orbits")
    points = sampling.box(jax.random.key(options.seed), options.starts, setting.box, dtype=dtype)
    found = basins.regimes(
        setting.rule,
        setting.loss,
        points,
        setting.step_sizes,
        stopping=setting.stopping,
        num_steps=options.num_steps,
        transient=options.transient,
        converged=options.rule in _SMOOTH,
        progress=progress,
    )
    enter(progress, "heatmap")
    origin, directions, axes = setting.plane
    source = GridSource(options.map_box, options.resolution, origin, directions, dtype)
    field, _ = basins.exponents(
        setting.rule, setting.loss, source, options.map_step_size, options.map_steps,
        escape_radius=options.escape_radius,
    )  # fmt: skip
    field = source.to_grid(field)
    enter(progress, "symmetric line")
    on_line = symmetric_line(options, setting.step_sizes, dtype)
    summary = summarise(options, found, field, on_line)
    enter(progress, SAVING)
    provenance = records.provenance(dtype, seed=options.seed)
    record.write_dataset(_dataset(found, field, axes, options).assign_attrs(provenance=provenance))
    figures.save(figures.draw_lyapunov(picture(options, summary, field, axes)), record, note=describe(options))
    return Study(record.finish({**summary, "seconds": time.perf_counter() - begin, "provenance": provenance}), found)


def phases(options: Lyapunov) -> dict[str, Phase]:
    """What a run goes through."""
    lanes = max(options.starts, 0) * len(parse_range(options.step_sizes))
    return {"orbits": Phase(8, lanes), "heatmap": Phase(2), "symmetric line": Phase(2), SAVING: Phase(2)}


def prepare(options: Lyapunov, dtype) -> Setting:
    """Build and check everything, so that a mistake leaves no directory behind."""
    rule = building.build_rule(options)
    loss, dim = building.build_loss(options.loss)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    building.check_tolerances(options, loss, dim)
    step_sizes = np.atleast_1d(check_step_sizes(parse_range(options.step_sizes), dtype))
    check_step_sizes(options.map_step_size, dtype)
    for name in ("starts", "line_starts", "line_steps", "max_period"):
        check_count(getattr(options, name), name, least=2)
    check_confidence(options.confidence)
    stopping = building.build_stopping(options)
    least = anchor_stride(options.max_period) + 2 * options.max_period
    if options.max_steps < least:
        raise ValueError(
            f"expected at least {least} updates to look for cycles up to period {options.max_period}, got --max-steps "
            f"{options.max_steps}; raise it, or lower --max-period"
        )
    box = expand_box(options.box, dim)
    check_box(options.map_box, 2)
    check_resolution(options.resolution, 2)
    lyapunov.plan(options.num_steps, options.transient)
    lyapunov.plan(options.line_steps)
    lyapunov.plan(options.map_steps, 0, blocks=8)
    rule.init(jnp.zeros(dim, dtype), 1.0)
    plane = basins.parse_plane(building.build_plane(options.plane, dim), dim)
    return Setting(rule, loss, step_sizes, box, plane, stopping)


def exactly_known(options: Lyapunov) -> bool:
    """Whether this is plain descent on c (a - xy)^2 with a > 0, whose bounded orbits collapse onto x = y."""
    loss = options.loss
    plain = options.rule == "descent" and options.weight_decay == 0
    return plain and isinstance(loss, Scalar) and loss.depth == 2 and loss.target > 0


def symmetric_line(options: Lyapunov, step_sizes: np.ndarray, dtype) -> collapse.Line | None:
    """Exponents on x = y where orbits there are bounded, NaN beyond; None where there is no such line."""
    if not exactly_known(options):
        return None
    target, scale = options.loss.target, options.loss.scale
    inside = 2 * scale * target * step_sizes <= 2
    if not inside.any():
        return None
    found = collapse.line(
        step_sizes[inside], target=target, scale=scale, starts=options.line_starts, num_steps=options.line_steps,
        seed=options.seed, confidence=options.confidence, dtype=dtype,
    )  # fmt: skip
    whole = [np.full(len(step_sizes), np.nan) for _ in found]
    for values, part in zip(whole, found, strict=True):
        values[inside] = part
    return collapse.Line(*whole)


def summarise(options: Lyapunov, found: basins.Regimes, field: np.ndarray, on_line: collapse.Line | None) -> dict:
    """What `summary.json` holds: `rows`, one per step size, and the heatmap in figures."""
    rows = found.rows(options.confidence)
    if exactly_known(options):
        for i, row in enumerate(rows):
            reduced = 2 * options.loss.scale * options.loss.target * row["step_size"]
            row["reduced"] = reduced
            row["closed_form"] = collapse.closed_form(reduced) if reduced <= 2 else None
            if on_line is not None and np.isfinite(on_line.along[i]):
                row.update(collapse.line_row(on_line, i))
        for row, extra in zip(rows, collapse.collapsed(found, options.confidence), strict=True):
            row.update(extra)
    known = field[np.isfinite(field)]
    quantiles = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    return {
        "starts": options.starts,
        "confidence": options.confidence,
        "rows": rows,
        "map": {
            "step_size": options.map_step_size,
            "steps": options.map_steps,
            "cells": field.size,
            "bounded": int(np.isfinite(field).sum() + np.isneginf(field).sum()),
            "positive": int((known > 0).sum()),
            "quantiles": dict(zip(map(str, quantiles), np.quantile(known, quantiles).tolist(), strict=True))
            if known.size
            else None,
        },
        "lane_steps": found.lane_steps + field.size * options.map_steps,
        "compile_seconds": found.compile_seconds,
        "run_seconds": found.run_seconds,
    }


def picture(options: Lyapunov, summary: dict, field: np.ndarray, axes: tuple[str, str]) -> figures.Exponents:
    """What is drawn."""
    rows = sorted(summary["rows"], key=lambda row: row["step_size"])

    def column(*names):
        return np.array([_dig(row, names) for row in rows], float)

    exponent = np.stack([column("exponent", name) for name in ("low", "median", "high")], axis=-1)
    shares = {kind.name.lower(): column("shares", kind.name.lower(), "value") for kind in basins.BOUNDED}
    known = exactly_known(options)
    return figures.Exponents(
        step_sizes=column("step_size"),
        exponent=exponent,
        shares=shares,
        bounded=column("bounded_share", "value"),
        closed_form=column("closed_form") if known else None,
        along=np.stack([column("along", i) for i in range(3)], axis=-1) if known else None,
        across=np.stack([column("across", i) for i in range(3)], axis=-1) if known else None,
        critical_step=1 / (2 * options.loss.scale * options.loss.target) if known else None,
        field=field,
        box=options.map_box,
        axes=axes,
        map_step_size=options.map_step_size,
        map_steps=options.map_steps,
        confidence=options.confidence,
    )


def _dig(row, names) -> float:
    """A nested entry, NaN where there is none."""
    for name in names:
        if row is None:
            return math.nan
        row = row[name] if isinstance(row, list) else row.get(name)
    return math.nan if row is None else row


def _dataset(found: basins.Regimes, field, axes, options: Lyapunov) -> xr.Dataset:
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
