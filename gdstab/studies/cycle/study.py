"""On which cycles orbits end at one step size, with what share of the starts, and their branches over the step size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import bifurcation, ensembles, estimators, orbits, sampling, theory
from gdstab._numerics import magnitude
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import building
from gdstab.studies.building import under_descent
from gdstab.studies.cycle import Cycle
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work
from gdstab.theory import symmetric_line
from gdstab.updates import UpdateRule

_SAME = 1e-3  # relative distance at which an orbit has ended on a cycle that is known


class Setting(NamedTuple):
    """What the options stand for."""

    rule: UpdateRule
    loss: LossFn
    dim: int
    needs: Needs


class Attractor(NamedTuple):
    """A cycle, and how many orbits ended on it."""

    cycle: orbits.Cycle
    lanes: int


class Search(NamedTuple):
    """What the starting points came to."""

    attractors: list[Attractor]  # the most frequented first
    counts: dict[str, int]  # of every outcome
    unassigned: int  # orbits that converged or cycle, but on nothing that Newton's method confirmed, or on one too many
    lane_steps: int


def prepare(options: Cycle) -> Setting:
    """Build and check everything."""
    rule = building.build_rule(options)
    loss, dim, dtype = building.problem(options)
    check_options(options, dim, dtype)
    return Setting(rule, loss, dim, Needs({"starts": 2 * options.starts * dim * dtype.itemsize}))


def phases(_: Cycle) -> dict[str, Phase]:
    """What a run goes through."""
    return {"orbits and their cycles": Phase(2), "branches": Phase(4), SAVING: Phase(2)}


def measure(options: Cycle, setting: Setting, work: Work):
    """Find the cycles, follow their branches."""
    rule, loss, dim = setting[:3]
    work.enter("orbits and their cycles")
    search = find(rule, loss, starting_points(options, dim, np.dtype(f"float{options.precision}")), options)
    work.enter("branches")
    low, high = limits(options)
    followed = bifurcation.explore(
        rule, loss, [found.cycle for found in search.attractors[: options.follow]], low, high,
        doublings=options.doublings, max_branches=options.branches, largest_step=options.largest_step,
    ) if search.attractors else []  # fmt: skip
    return columns_of(followed, dim), summarise(options, setting, search, followed)


def check_options(options: Cycle, dim: int, dtype) -> None:
    """Refuse what cannot be run."""
    check_step_sizes(options.step_size, dtype)
    building.given_points(options, dim, dtype)
    if not 0 <= options.coordinate < dim:
        raise ValueError(f"--coordinate takes the index of a parameter, 0 to {dim - 1}, but got {options.coordinate}")
    low, high = limits(options)
    if not 0 < low <= options.step_size <= high:
        raise ValueError(
            f"--step-sizes takes a positive low and a high end around the step size {options.step_size:g}, but got "
            f"{low:g} and {high:g}"
        )


def limits(options: Cycle) -> tuple[float, float]:
    """The range of step sizes of the branches.

    >>> limits(Cycle(step_size=1.0))
    (0.5, 1.4)
    """
    return (0.5 * options.step_size, 1.4 * options.step_size) if options.step_sizes is None else options.step_sizes


def starting_points(options: Cycle, dim: int, dtype) -> np.ndarray:
    """The points given, or random ones, [points, dim]."""
    if options.start:
        return building.given_points(options, dim, dtype)
    box = (options.box,) * dim
    return np.asarray(sampling.box(jax.random.key(options.seed), options.starts, box, dtype=dtype))


def find(rule: UpdateRule, loss: LossFn, points: np.ndarray, options: Cycle) -> Search:
    """Run an orbit from every point, and tell apart the cycles on which they end.

    Fixed points that fill a continuum count as one cycle.
    """
    grad_tol = _small_gradient(loss, points) if options.grad_tol is None else options.grad_tol
    longest = options.max_period if options.max_period > 1 else None
    stopping = StoppingRule(None, grad_tol, options.escape_radius, options.max_steps, longest)
    result = ensembles.run(rule, loss, points, options.step_size, stopping, keep=("theta",))
    counts = {verdict.name.lower(): int((result.outcome == verdict).sum()) for verdict in Outcome}
    waiting = np.isin(result.outcome, (Outcome.CYCLING, Outcome.CONVERGED))
    attractors, unassigned = [], 0
    while waiting.any() and len(attractors) < options.cycles:
        lane = int(np.flatnonzero(waiting)[0])
        mine = waiting & (result.period == result.period[lane])
        try:
            # From the start again, since the engine does not keep momentum; the orbit is the same.
            cycle = orbits.find_cycle(
                rule, loss, rule.init(jnp.asarray(points[lane]), options.step_size), options.step_size,
                options.max_period, max_steps=options.max_steps, escape_radius=options.escape_radius,
                grad_tol=options.grad_tol,
            )  # fmt: skip
        except ValueError:
            waiting[lane] = False
            unassigned += 1
            continue
        if not (cycle.period == 1 and int(cycle.neutral)):
            theta = np.asarray(cycle.theta)
            apart = np.linalg.norm(result.theta[:, None] - theta, axis=-1).min(axis=1)
            mine &= apart <= _SAME * (magnitude(float(cycle.scale)) + np.linalg.norm(theta[0]))
        mine[lane] = True
        attractors.append(Attractor(cycle, int(mine.sum())))
        waiting &= ~mine
    attractors.sort(key=lambda found: -found.lanes)
    return Search(attractors, counts, unassigned + int(waiting.sum()), result.lane_steps)


def _small_gradient(loss: LossFn, points: np.ndarray) -> float:
    """A gradient that is small against those at the starts, in whatever units the loss is."""
    slopes = np.linalg.norm(np.asarray(ensembles.map_points(jax.grad(loss), points), float), axis=1)
    eps, slopes = np.finfo(points.dtype).eps, slopes[np.isfinite(slopes)]
    return float(eps) ** 0.5 * magnitude(np.median(slopes) if slopes.size else 0.0)


def summarise(options: Cycle, setting: Setting, search: Search, followed: list) -> dict:
    """What `summary.json` holds."""
    starts = sum(search.counts.values())
    branches = [_branch(setting.rule, setting.loss, one.branch) for one in followed]
    flips = np.sort([point["step_size"] for branch in branches for point in branch["bifurcations"]
                     if point["kind"] == "flip"])  # fmt: skip
    different = flips[np.diff(flips, prepend=-1.0) > 1e-9 * flips]  # mirror images double at the same step size
    return {
        **picked(options, "rule", "step_size"), "starts": starts, "outcomes": search.counts,
        "cycles": [_cycle(found, starts) for found in search.attractors], "unassigned": search.unassigned,
        "range": list(limits(options)), "branches": branches, "doublings": different,
        "theory": exact(options, under_descent(options, setting.loss), search), "lane_steps": search.lane_steps,
    }  # fmt: skip


def exact(options: Cycle, product: theory.Product | None, search: Search) -> dict | None:
    """For descent on a product of two scalars: the doublings and the orbit of period 2 of the symmetric line."""
    if product is None:
        return None
    reduced, unit = product.reduced(options.step_size), product.reduced(1.0)
    known = {
        "doublings": [symmetric_line.PERIOD_TWO / unit, symmetric_line.PERIOD_FOUR / unit],
        "accumulation": symmetric_line.ACCUMULATION / unit, "last_bounded": symmetric_line.LAST_BOUNDED / unit,
        "period_two_multipliers": None, "period_two_error": None,
    }  # fmt: skip
    if reduced > 1:
        pair = symmetric_line.period_two_multipliers(reduced)
        known["period_two_multipliers"] = pair
        errors = [
            np.abs(np.sort(found.cycle.multipliers.real) - np.sort(pair)).max()
            for found in search.attractors if found.cycle.period == 2
        ]  # fmt: skip
        known["period_two_error"] = min(errors, default=None)
    return known


def _cycle(found: Attractor, starts: int) -> dict:
    cycle = found.cycle
    return {
        **picked(cycle, "period", "neutral", "radius", "stable", "residual"), "theta": np.asarray(cycle.theta, float),
        "multipliers": _complex(cycle.multipliers), "lanes": found.lanes, "share": found.lanes / starts,
        "interval": estimators.wilson_interval(found.lanes, starts),
    }  # fmt: skip


def _branch(rule: UpdateRule, loss: LossFn, branch: bifurcation.Branch) -> dict:
    return {
        **picked(branch, "period", "neutral", "ends"), "points": len(branch.step_sizes),
        "from": branch.step_sizes.min(), "to": branch.step_sizes.max(), "share_stable": branch.stable.mean(),
        "bifurcations": [_point(rule, loss, point) for point in branch.bifurcations],
    }  # fmt: skip


def _point(rule: UpdateRule, loss: LossFn, point: bifurcation.Bifurcation) -> dict:
    found = {
        "kind": point.kind.value,
        **picked(point, "step_size", "period", "birth"),
        "theta": np.asarray(rule.theta(point.state), float).tolist(),
        "multipliers": _complex(point.multipliers),
    }
    if point.kind is bifurcation.Kind.FLIP:
        form = bifurcation.flip_form(rule, loss, point.state, point.step_size, point.period)
        found |= {
            **picked(form, "coefficient", "supercritical", "amplitude_slope"),
            "drift": jnp.linalg.norm(form.drift),
        }
    return found


def _complex(values) -> list[list[float]]:
    """Real and imaginary parts."""
    return [[float(value.real), float(value.imag)] for value in np.asarray(values)]


def columns_of(followed: list, dim: int) -> xr.Dataset:
    """One row for every point of every cycle of every branch."""
    rows = {name: [] for name in ("branch", "point", "phase", "period", "step_size", "stable", "radius")}
    theta = [np.zeros((0, dim))]
    for number, (branch, along) in enumerate(followed):
        points, period = len(branch.step_sizes), branch.period
        radius = radii(branch)
        rows["branch"].append(np.full(points * period, number))
        rows["point"].append(np.repeat(np.arange(points), period))
        rows["phase"].append(np.tile(np.arange(period), points))
        rows["period"].append(np.full(points * period, period))
        rows["step_size"].append(np.repeat(branch.step_sizes, period))
        rows["stable"].append(np.repeat(branch.stable.astype(np.int8), period))
        rows["radius"].append(np.repeat(radius, period))
        theta.append(np.asarray(along, float).reshape(points * period, dim))
    columns = {name: ("row", np.concatenate(parts) if parts else np.zeros(0)) for name, parts in rows.items()}
    return xr.Dataset({**columns, "theta": (("row", "coordinate"), np.concatenate(theta))})


def radii(branch: bifurcation.Branch) -> np.ndarray:
    """The largest modulus of the multipliers at every point of a branch, the neutral ones left out."""
    order = np.argsort(np.abs(branch.multipliers - 1), axis=1)[:, branch.neutral :]
    return np.abs(np.take_along_axis(branch.multipliers, order, axis=1)).max(axis=1, initial=0.0)
