"""The flattest minimum and the critical step size of a loss; how much of its minima is stable (Figure 1(b) of paper A).

Products of scalars, of vectors and of matrices are all linear networks on whitened inputs, so that the closed form
2 c h sigma_max^(2 - 2/h) holds for each of them.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import basins, curvature, ensembles, estimators, minima, updates
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.outcomes import StoppingRule
from gdstab.studies import building
from gdstab.studies.critical import Critical
from gdstab.studies.options import parse_range
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.work import Needs, Work
from gdstab.theory import Known, Product, known, scalar

QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_WALK = 2000  # steps along the curve of minima
_SMALL = 1e-10  # a gradient that counts as zero in the measured areas


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    known: Known
    step_sizes: np.ndarray
    needs: Needs


def prepare(options: Critical) -> Setting:
    """Build and check everything."""
    loss, dim, dtype = building.problem(options)
    step_sizes, what = check_step_sizes(parse_range(options.step_sizes), dtype), known(loss)
    cells = math.prod(options.resolution) if what.hyperbola else 0
    numbers = {"samples": options.samples * dim, "resolution": cells}
    needs = Needs({name: 3 * number * dtype.itemsize for name, number in numbers.items()})
    return Setting(loss, what, step_sizes, needs)


def phases(_: Critical) -> dict[str, Phase]:
    """What a run goes through."""
    return {
        "random minima": Phase(1), "flattest minimum": Phase(2), "sharpness": Phase(1), "areas and lengths": Phase(3),
        SAVING: Phase(1),
    }  # fmt: skip


def measure(options: Critical, setting: Setting, work: Work):
    """Draw minima, take their sharpness, descend to the flattest; for two scalars measure Figure 1(b)."""
    loss, dtype, curves = setting.loss, np.dtype(f"float{options.precision}"), {}
    work.enter("random minima")
    points = building.sample_minima(options.loss, options.samples, options.spread, options.seed, dtype)
    work.enter("flattest minimum")
    flattest = minima.flattest(loss, list(jnp.asarray(points[: options.starts])))
    work.enter("sharpness")
    tops = np.asarray(ensembles.map_points(lambda theta: curvature.eigenvalues(loss, theta)[-1], points))
    work.enter("areas and lengths")
    if setting.known.hyperbola:
        curves = figure_1b(options, setting, dtype)
    variables = {"theta": (("sample", "coordinate"), np.asarray(points)), "sharpness": ("sample", tops)}
    variables |= {name: ("step_size", values) for name, values in curves.items()}
    return xr.Dataset(variables, {"step_size": setting.step_sizes}), summarise(setting, flattest, tops, curves)


def summarise(setting: Setting, flattest: minima.Flattest, tops: np.ndarray, curves: dict[str, np.ndarray]) -> dict:
    """What `summary.json` holds."""
    exact, step_sizes = setting.known.flattest, setting.step_sizes
    # At the threshold itself a minimum is not counted, whatever rounding says.
    below = 1 - 64 * np.finfo(tops.dtype).eps
    stable = np.array([int((tops < below * 2 / eta).sum()) for eta in step_sizes])
    intervals = np.transpose(estimators.wilson_interval(stable, tops.size))
    columns = {"step_size": step_sizes, "stable": stable, "share": stable / tops.size, "wilson": intervals} | curves
    return {
        "flattest": flattest.sharpness, "flattest_at": np.asarray(flattest.theta, float), "exact_flattest": exact,
        "relative_error": abs(flattest.sharpness / exact - 1) if exact else None,
        "reached_from_starts": flattest.reached, "critical_step": 2 / flattest.sharpness,
        "exact_critical_step": setting.known.critical_step, "minima": tops.size,
        "thresholds": dict(zip(map(str, QUANTILES), np.quantile(2 / tops, QUANTILES), strict=True)),
        "rows": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    }  # fmt: skip


def figure_1b(options: Critical, setting: Setting, dtype) -> dict[str, np.ndarray]:
    """Both ratios of Figure 1(b) of paper A per step size, measured and exact.

    `trapped` is the share of the cells of the box that do not diverge, `converged` of those that converge (saddles
    included: a null set), both by running descent; `stable_length` is the share of the hyperbola in the box that is
    stable, by walking along it.
    """
    (loss, what, step_sizes, _), box = setting, options.box
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
    exact = exact_curves(what.hyperbola, box, step_sizes)
    return {
        "trapped": np.array(trapped),
        "converged": np.array(converged),
        "stable_length": stable_share(loss, what.hyperbola.target, box, step_sizes, dtype),
        **{f"exact_{name}": values for name, values in exact.items()},
    }


def exact_curves(product: Product, box, step_sizes: np.ndarray) -> dict[str, np.ndarray]:
    """The ratios of `figure_1b` from their closed forms."""
    target, scale = product.target, product.scale
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
    rows = np.column_stack([theta, curve.arc_length, curve.sharpness])
    parts = [rows[inside[0] : inside[-1] + 1]]
    for last, neighbour, place in ((inside[0], inside[0] - 1, 0), (inside[-1], inside[-1] + 1, 2)):
        if 0 <= neighbour < len(theta) and beyond[last] < 0:
            share = beyond[last] / (beyond[last] - beyond[neighbour])
            parts.insert(place, (rows[last] * (1 - share) + rows[neighbour] * share)[None])
    joined = np.concatenate(parts)
    return minima.Curve(joined[:, :2], joined[:, 2], joined[:, 3])
