"""The flattest minimum and the critical step size of a loss; how much of its minima is stable (Figure 1(b) of paper A).

Products of scalars, of vectors and of matrices are all linear networks on whitened inputs, so that the closed form
2 c h sigma_max^(2 - 2/h) holds for each of them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import basins, curvature, ensembles, estimators, figures, minima, records, updates
from gdstab._types import LossFn
from gdstab._validate import check_box, check_count, check_positive, check_resolution, check_step_sizes
from gdstab.outcomes import StoppingRule
from gdstab.studies import building
from gdstab.studies import options as opt
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Critical, describe
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.theory import linear, scalar

QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_WALK = 2000  # steps along the curve of minima
_SMALL = 1e-10  # a gradient that counts as zero in the measured areas


class Study(NamedTuple):
    """A complete run on disk."""

    record: records.Record
    fresh: bool  # made just now, not read back


def run(options: Critical, *, progress: Callable | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Critical(samples=100, starts=2, step_sizes="0.3:0.7:2", resolution=(20, 20), out=Path(folder)))
    >>> round(study.record.summary["critical_step"], 6), study.record.summary["exact_critical_step"]
    (0.5, 0.5)
    """
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    step_sizes = check_step_sizes(opt.parse_range(options.step_sizes), dtype)
    check_box(options.box, 2)
    check_resolution(options.resolution, 2)
    check_count(options.samples, "samples")
    check_count(options.starts, "starts")
    check_positive(options.spread, "spread")
    cells = math.prod(options.resolution) if has_figure_1b(options) else 0
    check_memory(samples=3 * options.samples * dim * dtype.itemsize, resolution=3 * cells * dtype.itemsize)
    record = records.begin(
        options.out, building.configuration(options), overwrite=options.overwrite, resume=options.resume
    )
    if record.complete:
        return Study(record, fresh=False)
    enter(progress, "random minima")
    points = building.sample_minima(options.loss, options.samples, options.spread, options.seed, dtype)
    enter(progress, "flattest minimum")
    flattest = minima.flattest(loss, list(jnp.asarray(points[: options.starts])))
    enter(progress, "sharpness")
    tops = np.asarray(ensembles.map_points(lambda theta: curvature.eigenvalues(loss, theta)[-1], points))
    enter(progress, "areas and lengths")
    curves = figure_1b(options, loss, step_sizes, dtype) if has_figure_1b(options) else None
    enter(progress, SAVING)
    summary = summarise(options, flattest, tops, step_sizes, curves)
    provenance = records.provenance(dtype, seed=options.seed)
    dataset = _dataset(step_sizes, points, tops, curves)
    record.write_dataset(dataset.assign_attrs(provenance=provenance))
    figures.save(
        figures.draw_critical(_picture(options, summary, step_sizes, tops, curves)), record, note=describe(options)
    )
    return Study(record.finish({**summary, "provenance": provenance}), fresh=True)


PHASES = {
    "random minima": Phase(1), "flattest minimum": Phase(2), "sharpness": Phase(1), "areas and lengths": Phase(3),
    SAVING: Phase(1),
}  # fmt: skip
"""What a run goes through."""


def closed_form(loss: opt.Scalar | opt.Vector | opt.Linear) -> float:
    r"""$\min_M \lambda_{max}$ of each loss, as a linear network.

    >>> closed_form(opt.Scalar(target=3.0, scale=1.0)), closed_form(opt.Vector(target=-2.0))
    (12.0, 4.0)
    """
    if isinstance(loss, opt.Linear):
        sigma = float(np.linalg.norm(building.teacher(loss), 2))
        return linear.flattest_sharpness(sigma, len(loss.widths) - 1, loss.scale)
    depth = loss.depth if isinstance(loss, opt.Scalar) else 2
    return linear.flattest_sharpness(abs(loss.target), depth, loss.scale)


def summarise(options: Critical, flattest: minima.Flattest, tops: np.ndarray, step_sizes, curves: dict | None) -> dict:
    """What `summary.json` holds."""
    exact = closed_form(options.loss)
    below = (
        1 - 64 * np.finfo(tops.dtype).eps
    )  # at the threshold itself a minimum is not counted, whatever rounding says
    stable = np.array([int((tops < below * 2 / eta).sum()) for eta in step_sizes])
    low, high = estimators.wilson_interval(stable, tops.size)
    rows = [
        {"step_size": float(eta), "stable": int(n), "share": float(n / tops.size), "wilson": [float(a), float(b)]}
        for eta, n, a, b in zip(step_sizes, stable, low, high, strict=True)
    ]
    if curves is not None:
        for i, row in enumerate(rows):
            row |= {name: float(values[i]) for name, values in curves.items()}
    return {
        "flattest": flattest.sharpness,
        "flattest_at": np.asarray(flattest.theta, float).tolist(),
        "exact_flattest": exact,
        "relative_error": abs(flattest.sharpness / exact - 1) if exact else None,
        "reached_from_starts": flattest.reached.tolist(),
        "critical_step": 2 / flattest.sharpness,
        "exact_critical_step": 2 / exact if exact else None,
        "minima": int(tops.size),
        "thresholds": dict(zip(map(str, QUANTILES), np.quantile(2 / tops, QUANTILES).tolist(), strict=True)),
        "rows": rows,
    }


def has_figure_1b(options: Critical) -> bool:
    """Whether the loss is c (a - xy)^2 with a > 0."""
    return isinstance(options.loss, opt.Scalar) and options.loss.depth == 2 and options.loss.target > 0


def figure_1b(options: Critical, loss: LossFn, step_sizes: np.ndarray, dtype) -> dict[str, np.ndarray]:
    """Both ratios of Figure 1(b) of paper A per step size, measured and exact.

    `trapped` is the share of the cells of the box that do not diverge, `converged` of those that converge (saddles
    included: a null set), both by running descent; `stable_length` is the share of the hyperbola in the box that is
    stable, by walking along it.
    """
    target, box = options.loss.target, options.box
    stopping = StoppingRule(grad_tol=_SMALL, escape_radius=1e3, max_steps=options.max_steps)
    rule = updates.gradient_descent()
    trapped, converged = [], []
    for eta in step_sizes:
        result = basins.heatmap(
            rule, loss, float(eta), box=box, resolution=options.resolution, stopping=stopping, dtype=dtype
        )
        counts = result.counts
        trapped.append(1 - (counts["diverged"] + counts["nonfinite"]) / result.cells)
        converged.append(counts["converged"] / result.cells)
    exact = exact_curves(options, step_sizes)
    return {
        "trapped": np.array(trapped),
        "converged": np.array(converged),
        "stable_length": stable_share(loss, target, box, step_sizes, dtype),
        **{f"exact_{name}": values for name, values in exact.items()},
    }


def exact_curves(options: Critical, step_sizes: np.ndarray) -> dict[str, np.ndarray]:
    """The ratios of `figure_1b` from their closed forms."""
    target, scale, box = options.loss.target, options.loss.scale, options.box
    area, whole = math.prod(high - low for low, high in box), scalar.minima_length(box, target)
    sizes = np.asarray(step_sizes, float).tolist()
    length = np.array([scalar.stable_minima(eta, target, scale, box).length for eta in sizes])
    return {
        "trapped": np.array([scalar.trapping_area(eta, target, scale, box) for eta in sizes]) / area,
        "converged": np.array([scalar.basin_area(eta, target, scale, box) for eta in sizes]) / area,
        "stable_length": length / whole if whole else length,
    }


def stable_share(loss: LossFn, target: float, box, step_sizes: np.ndarray, dtype) -> np.ndarray:
    """Stable length over length of the branches of the hyperbola inside the box, measured along the curve."""
    reach = max(abs(end) for side in box for end in side)
    length = 0.5 * scalar.minima_length(((-reach, reach), (-reach, reach)), target) + 2 * reach
    stable, whole = np.zeros(len(step_sizes)), 0.0
    for sign in (1.0, -1.0):
        start = jnp.full(2, sign * math.sqrt(target), dtype)
        curve = minima.trace_curve(loss, start, length, length / _WALK)
        part = clip(curve, box)
        if part is not None:
            stable += minima.stable_length(part, step_sizes)
            whole += part.arc_length[-1] - part.arc_length[0]
    return stable / whole if whole else stable


def clip(curve: minima.Curve, box) -> minima.Curve | None:
    """The part of a curve in the plane between its first and its last point in the box, ends interpolated."""
    theta, (low, high) = np.asarray(curve.theta), np.transpose(box)
    beyond = np.maximum(low - theta, theta - high).max(axis=1)  # positive outside
    inside = np.flatnonzero(beyond <= 0)
    if inside.size < 4:
        return None
    parts = [np.column_stack([theta, curve.arc_length, curve.sharpness])[inside[0] : inside[-1] + 1]]
    for last, neighbour, place in ((inside[0], inside[0] - 1, 0), (inside[-1], inside[-1] + 1, 2)):
        if 0 <= neighbour < len(theta) and beyond[last] < 0:
            share = beyond[last] / (beyond[last] - beyond[neighbour])
            row = np.column_stack([theta, curve.arc_length, curve.sharpness])
            parts.insert(place, (row[last] * (1 - share) + row[neighbour] * share)[None])
    joined = np.concatenate(parts)
    return minima.Curve(joined[:, :2], joined[:, 2], joined[:, 3])


def _dataset(step_sizes, points, tops, curves) -> xr.Dataset:
    variables = {"theta": (("sample", "coordinate"), np.asarray(points)), "sharpness": ("sample", tops)}
    variables |= {name: ("step_size", values) for name, values in (curves or {}).items()}
    return xr.Dataset(variables, {"step_size": step_sizes})


def _picture(options: Critical, summary: dict, step_sizes, tops, curves) -> figures.Stable:
    """What is drawn; the exact curves on a finer grid than the measured ones."""
    shares = np.array([row["share"] for row in summary["rows"]])
    interval = np.array([row["wilson"] for row in summary["rows"]])
    fine = np.linspace(step_sizes.min(), step_sizes.max(), 601)
    exact = None if curves is None else {"step_size": fine, **exact_curves(options, fine)}
    steps = summary["critical_step"], summary["exact_critical_step"]
    return figures.Stable(step_sizes, shares, interval, 2 / tops, *steps, curves, exact)
