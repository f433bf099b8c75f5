r"""The study of $\eta^*(\theta_0)$: a map of the critical step of every cell, and how it agrees with theory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from gdstab import basins, boundaries, stability, updates
from gdstab._types import LossFn
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource
from gdstab.studies import building, labels
from gdstab.studies.critical_map import CriticalMap
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work
from gdstab.theory import Known, known, scalar

QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
CLEAR = 0.98
"""Below this share of the critical step of the minima, orbits at their own critical step leave or settle fast."""

_SEARCH = ("low", "high", "scan", "rtol", "undecided_rtol", "nudge")
_BYTES_PER_CELL = 3 * (2 * 8 + 4)  # brackets, flags and verdicts, in the parts, in memory on the way, in the result
_BYTES_PER_LABEL = 3 * 4


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    known: Known
    source: GridSource
    box: tuple
    axes: tuple[str, str]
    stopping: StoppingRule
    label: Callable | basins.Found | None
    needs: Needs


def prepare(options: CriticalMap) -> Setting:
    """Build and check everything."""
    loss, dim, dtype = building.problem(options)
    stopping = building.build_stopping(options)
    plane = building.build_plane(options.plane, dim)
    box, shape = options.box, options.resolution
    origin, directions, axes = basins.parse_plane(plane, dim)
    boundaries.check_search(dtype, **{name: getattr(options, name) for name in _SEARCH})
    label = labels.build_label(options, loss, dim)
    size = math.prod(shape) * (_BYTES_PER_CELL + (0 if label is None else _BYTES_PER_LABEL))
    source = GridSource(box, shape, origin, directions, dtype, compact=True)
    return Setting(loss, known(loss), source, box, axes, stopping, label, Needs({"resolution": size}, size))


def phases(options: CriticalMap) -> dict[str, Phase]:
    """What a run goes through."""
    return {"bisections": Phase(10, expected_orbits(options)), SAVING: Phase(1)}


def expected_orbits(options: CriticalMap) -> int:
    """About how many orbits a run takes: scan and bisection of every cell."""
    ratio = max(options.high / options.low, 1 + 1e-9)
    rounds = math.log2(math.log(ratio) / max(options.scan - 1, 1) / options.rtol)
    return math.prod(options.resolution) * (1 + options.scan + max(math.ceil(rounds), 0))


def measure(options: CriticalMap, setting: Setting, work: Work):
    """Bracket the critical step of every cell."""
    finished, keep = work.parts(boundaries.CriticalPart.from_arrays)
    work.enter("bisections")
    found = boundaries.critical_step(
        updates.gradient_descent(), setting.loss, setting.source, stopping=setting.stopping,
        classify=stability.classify if options.kinds else None, label=setting.label, progress=work.progress,
        finished=finished, on_part=lambda part: keep(part.arrays()),
        **{name: getattr(options, name) for name in _SEARCH},
    )  # fmt: skip
    return _dataset(found, setting), summarise(found, setting, options)


def summarise(found: boundaries.CriticalSteps, setting: Setting, options: CriticalMap) -> dict:
    """What `summary.json` holds."""
    eta = found.eta
    known = eta[np.isfinite(eta)]
    quantiles = np.quantile(known, QUANTILES) if known.size else [None] * len(QUANTILES)
    at_high = np.bincount(found.outcome[np.isfinite(found.high)], minlength=len(Outcome))
    kinds = np.bincount(found.kind[found.kind >= 0], minlength=len(stability.Kind))
    against = compare(eta, setting.source, options, setting.known)
    ends = {} if found.attractors is None else {"attractors": _attractors(found, setting.loss)}
    return {
        "cells": eta.size, "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
        "flagged": (~found.interval).sum(), "flagged_share": (~found.interval).mean(),
        "none_converges": (found.interval & (found.low == 0)).sum(),
        "all_converge": (found.interval & np.isinf(found.high)).sum(),
        "above": {verdict.name.lower(): at_high[verdict] for verdict in basins.ORDER},
        "kinds": {kind.name.lower(): kinds[kind] for kind in stability.Kind} if options.kinds else None,
        "moved": found.moved.sum(),
        "theory": {name: "inf" if value == np.inf else value for name, value in against.items()}, "orbits": found.lanes,
        **picked(found, "lane_steps", "compile_seconds", "run_seconds"), **ends,
    }  # fmt: skip


def _attractors(found: boundaries.CriticalSteps, loss: LossFn) -> list[dict]:
    """What is said of each attractor, with the median critical step of those of its cells that have one."""
    rows = labels.summarise(found.attractors, loss)
    for number, row in enumerate(rows):
        steps = found.eta[(found.label == number) & found.interval]
        steps = steps[np.isfinite(steps)]
        row["critical_step"] = np.median(steps) if steps.size else None
    return rows


def compare(eta: np.ndarray, source: GridSource, options: CriticalMap, what: Known) -> dict:
    r"""Largest relative errors against `scalar.largest_converging_step`, apart below and above 0.98 $\eta_C$.

    Left out are cells with $u = -v$, which converge to the saddle, and cells whose exact value is outside the range.
    None where no closed form is known; inf where a cell has no step size that should have one.
    """
    errors = ("left_out", "cells_below", "max_relative_error_below", "cells_elsewhere", "max_relative_error_elsewhere")
    report = {"critical_step": what.critical_step, **dict.fromkeys(errors)}
    if what.product is None:
        return report
    points = source.take(np.arange(source.num_points)).astype(np.float64)
    exact = scalar.largest_converging_step(points, what.product.target, what.product.scale)
    u, v = np.split(points, 2, axis=1)
    usable = ~(u == -v).all(axis=1) & (exact > options.low) & (exact < options.high)
    error = np.where(np.isfinite(eta), np.abs(eta / exact - 1), np.inf)
    report["left_out"] = int((~usable).sum())
    below = exact < CLEAR * what.critical_step
    for name, cells in (("below", usable & below), ("elsewhere", usable & ~below)):
        report[f"cells_{name}"] = int(cells.sum())
        report[f"max_relative_error_{name}"] = float(error[cells].max()) if cells.any() else None
    return report


def _dataset(found: boundaries.CriticalSteps, setting: Setting) -> xr.Dataset:
    meanings = {"flag_values": [int(v) for v in Outcome], "flag_meanings": " ".join(v.name.lower() for v in Outcome)}
    kinds = " ".join(f"{kind.value}:{kind.name.lower()}" for kind in stability.Kind) + " -1:unknown"
    variables = {
        "eta": (found.eta, {"long_name": "critical step of the cell: middle of its bracket"}),
        "low": (found.low, {"long_name": "largest step size that converges; 0 if none does"}),
        "high": (found.high, {"long_name": "smallest step size above that does not; inf if all converge"}),
        "flag": (~found.interval, {"long_name": "the converging step sizes are no interval"}),
        "outcome": (found.outcome, {"long_name": "how the orbit ends at high", **meanings}),
        "kind": (found.kind, {"long_name": "what the orbit converges to at low", "flag_meanings": kinds}),
        "moved": (found.moved, {"long_name": "the centre is a critical point and was moved"}),
    }
    axes, source = setting.axes, setting.source
    data = {name: (axes, source.to_grid(values), attrs) for name, (values, attrs) in variables.items()}
    dataset = xr.Dataset(data, dict(zip(axes, _centres(setting), strict=True)), {"scan": found.step_sizes.tolist()})
    if found.attractors is None:
        return dataset
    name = {"long_name": "attractor that the orbit ends on at low; -1 of none"}
    return found.attractors.onto(dataset, (axes, source.to_grid(found.label), name))


def _centres(setting: Setting) -> list[np.ndarray]:
    """Coordinates of the cell centres along both axes."""
    tables = setting.source.tables
    sides = zip(setting.box, map(len, tables), strict=True)
    return [GridSource((side,), (n,), dtype=tables[0].dtype).take(np.arange(n))[:, 0] for side, n in sides]
