r"""The study of $\eta^*(\theta_0)$: a map of the critical step of every cell, and how it agrees with theory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from gdstab import basins, boundaries, figures, records, stability, updates
from gdstab._validate import check_box, check_loss, check_positive, check_resolution
from gdstab.outcomes import Outcome
from gdstab.sampling import GridSource
from gdstab.studies import building
from gdstab.studies import options as opt
from gdstab.studies.critical import study as critical
from gdstab.studies.heatmap import study as heatmap
from gdstab.studies.memory import check_memory
from gdstab.studies.options import CriticalMap, describe
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.theory import scalar

QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
CLEAR = 0.98
"""Below this share of the critical step of the minima, orbits at their own critical step leave or settle fast."""

_BYTES_PER_CELL = 3 * (2 * 8 + 4)  # brackets, flags and verdicts, in the parts, in memory on the way, in the result


class Study(NamedTuple):
    """A complete run on disk, and its critical steps where they were found just now."""

    record: records.Record
    steps: boundaries.CriticalSteps | None


def run(options: CriticalMap, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(CriticalMap(resolution=(10, 10), max_steps=2000, out=Path(folder)))
    >>> study.record.summary["theory"]["critical_step"], study.record.summary["flagged"]
    (0.5, 0)
    """
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    stopping = building.build_stopping(options)
    plane = building.build_plane(options.plane, dim)
    # All of this is checked again where it is used; here so that a mistake leaves no directory behind.
    box = tuple(tuple(side) for side in check_box(options.box, 2).tolist())
    shape = check_resolution(options.resolution, 2)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    building.check_tolerances(options, loss, dim)
    origin, directions, axes = basins.parse_plane(plane, dim)
    asked = {name: getattr(options, name) for name in ("low", "high", "scan", "rtol", "undecided_rtol", "nudge")}
    boundaries.check_search(dtype, **asked)
    check_memory(resolution=math.prod(shape) * _BYTES_PER_CELL)
    record = records.begin(
        options.out,
        building.configuration(options),
        bytes_needed=math.prod(shape) * _BYTES_PER_CELL + 20_000_000,
        overwrite=options.overwrite,
        resume=options.resume,
    )
    if record.complete:
        return Study(record, None)
    source = GridSource(box, shape, origin, directions, dtype, compact=True)
    finished = _finished(record)
    enter(progress, "bisections")
    found = boundaries.critical_step(
        updates.gradient_descent(), loss, source, stopping=stopping,
        classify=stability.classify if options.kinds else None, progress=progress, finished=finished,
        on_part=_keeper(record, len(finished)), **asked,
    )  # fmt: skip
    summary = summarise(found, source, options)
    summary["run_seconds"] += record.seconds_before()
    provenance = records.provenance(dtype)
    enter(progress, SAVING)
    record.write_dataset(_dataset(found, source, box, axes).assign_attrs(provenance=provenance))
    figures.save(figures.draw_critical_map(_picture(found, source, box, axes, options)), record, note=describe(options))
    return Study(record.finish({**summary, "provenance": provenance}), found)


def phases(options: CriticalMap) -> dict[str, Phase]:
    """What a run goes through."""
    return {"bisections": Phase(10, expected_orbits(options)), SAVING: Phase(1)}


def expected_orbits(options: CriticalMap) -> int:
    """About how many orbits a run takes: scan and bisection of every cell."""
    ratio = check_positive(options.high, "high") / check_positive(options.low, "low")
    rounds = math.log2(math.log(max(ratio, 1 + 1e-9)) / max(options.scan - 1, 1) / check_positive(options.rtol, "rtol"))
    return math.prod(check_resolution(options.resolution, 2)) * (1 + options.scan + max(math.ceil(rounds), 0))


def summarise(found: boundaries.CriticalSteps, source: GridSource, options: CriticalMap) -> dict:
    """What `summary.json` holds."""
    eta = found.eta
    known = eta[np.isfinite(eta)]
    quantiles = np.quantile(known, QUANTILES).tolist() if known.size else [None] * len(QUANTILES)
    at_high = np.bincount(found.outcome[np.isfinite(found.high)], minlength=len(Outcome))
    kinds = np.bincount(found.kind[found.kind >= 0], minlength=len(stability.Kind))
    return {
        "cells": eta.size,
        "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
        "flagged": int((~found.interval).sum()),
        "flagged_share": float((~found.interval).mean()),
        "none_converges": int((found.interval & (found.low == 0)).sum()),
        "all_converge": int((found.interval & np.isinf(found.high)).sum()),
        "above": {verdict.name.lower(): int(at_high[verdict]) for verdict in basins.ORDER},
        "kinds": {kind.name.lower(): int(kinds[kind]) for kind in stability.Kind} if options.kinds else None,
        "moved": int(found.moved.sum()),
        "theory": {name: value if value != np.inf else "inf" for name, value in compare(eta, source, options).items()},
        "orbits": found.lanes,
        "lane_steps": found.lane_steps,
        "compile_seconds": found.compile_seconds,
        "run_seconds": found.run_seconds,
    }


def compare(eta: np.ndarray, source: GridSource, options: CriticalMap) -> dict:
    r"""Largest relative errors against `scalar.largest_converging_step`, apart below and above 0.98 $\eta_C$.

    Left out are cells with $u = -v$, which converge to the saddle, and cells whose exact value is outside the range.
    None where no closed form is known; inf where a cell has no step size that should have one.
    """
    errors = ("left_out", "cells_below", "max_relative_error_below", "cells_elsewhere", "max_relative_error_elsewhere")
    report = {"critical_step": critical_step(options.loss), **dict.fromkeys(errors)}
    loss = options.loss
    if not (isinstance(loss, opt.Vector) or (isinstance(loss, opt.Scalar) and loss.depth == 2)) or loss.target <= 0:
        return report
    points = source.take(np.arange(source.num_points)).astype(np.float64)
    exact = scalar.largest_converging_step(points, loss.target, loss.scale)
    u, v = np.split(points, 2, axis=1)
    usable = ~(u == -v).all(axis=1) & (exact > options.low) & (exact < options.high)
    error = np.where(np.isfinite(eta), np.abs(eta / exact - 1), np.inf)
    report["left_out"] = int((~usable).sum())
    below = exact < CLEAR * report["critical_step"]
    for name, cells in (("below", usable & below), ("elsewhere", usable & ~below)):
        report[f"cells_{name}"] = int(cells.sum())
        report[f"max_relative_error_{name}"] = float(error[cells].max()) if cells.any() else None
    return report


def critical_step(loss: opt.Loss) -> float | None:
    """The largest step size at which some minimum is stable, where it is known.

    >>> critical_step(opt.Scalar(scale=1.0)), critical_step(opt.Rosenbrock())
    (0.5, None)
    """
    if not isinstance(loss, opt.Scalar | opt.Vector | opt.Linear):
        return None
    sharpness = critical.closed_form(loss)
    return 2 / sharpness if sharpness > 0 else None


def _dataset(found: boundaries.CriticalSteps, source: GridSource, box, axes) -> xr.Dataset:
    meanings = {"flag_values": [int(v) for v in Outcome], "flag_meanings": " ".join(v.name.lower() for v in Outcome)}
    variables = {
        "eta": (found.eta, {"long_name": "critical step of the cell: middle of its bracket"}),
        "low": (found.low, {"long_name": "largest step size that converges; 0 if none does"}),
        "high": (found.high, {"long_name": "smallest step size above that does not; inf if all converge"}),
        "flag": (~found.interval, {"long_name": "the converging step sizes are no interval"}),
        "outcome": (found.outcome, {"long_name": "how the orbit ends at high", **meanings}),
        "kind": (found.kind, {"long_name": "what the orbit converges to at low", "flag_meanings": _kind_names()}),
        "moved": (found.moved, {"long_name": "the centre is a critical point and was moved"}),
    }
    data = {name: (axes, source.to_grid(values), attrs) for name, (values, attrs) in variables.items()}
    centres = _centres(box, source)
    return xr.Dataset(data, dict(zip(axes, centres, strict=True)), {"scan": found.step_sizes.tolist()})


def _kind_names() -> str:
    return " ".join(f"{kind.value}:{kind.name.lower()}" for kind in stability.Kind) + " -1:unknown"


def _centres(box, source: GridSource) -> list[np.ndarray]:
    """Coordinates of the cell centres along both axes."""
    dtype = source.tables[0].dtype
    sides = zip(box, (len(table) for table in source.tables), strict=True)
    return [np.asarray(GridSource((side,), (n,), dtype=dtype).take(np.arange(n)))[:, 0] for side, n in sides]


def _picture(found: boundaries.CriticalSteps, source, box, axes, options: CriticalMap) -> figures.CriticalMap:
    """What the figure shows; the minima and the exact level lines where they are known."""
    minima, lines = [], None
    if heatmap.exactly_known(options):
        target, scale = options.loss.target, options.loss.scale
        minima, _ = heatmap.hyperbola(options.high, box, target, scale)

        def lines(step_size):
            return scalar.ellipse_curve(step_size, target, scale)

    step = critical_step(options.loss)
    return figures.CriticalMap(
        eta=source.to_grid(found.eta),
        flagged=source.to_grid(~found.interval),
        all_converge=source.to_grid(np.isinf(found.high) & found.interval),
        box=box,
        axes=axes,
        critical_step=step,
        minima=minima,
        level_line=lines,
    )


def _keeper(record: records.Record, first: int) -> Callable[[boundaries.CriticalPart], None]:
    """Write every new part down, numbered in order."""
    numbers = iter(range(first, 2**31))
    return lambda part: record.commit(next(numbers), **part._asdict())


def _finished(record: records.Record) -> list[boundaries.CriticalPart]:
    """The parts of an interrupted run."""
    parts = [{name: array if array.ndim else int(array) for name, array in part.items()} for part in record.parts()]
    return [boundaries.CriticalPart(**part) for part in parts]
