"""How far descent strays from gradient flow: distances for several step sizes, curvature, and the bound of paper D."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import figures, flow, records, sampling
from gdstab._types import LossFn
from gdstab._validate import check_count, check_loss, check_positive, check_step_sizes
from gdstab.studies import building, training
from gdstab.studies import options as opt
from gdstab.studies.flow import tube
from gdstab.studies.flow.tube import Tube
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Flow, describe
from gdstab.studies.phases import SAVING, Phase, count, enter

_SPREAD = 0.3  # of random starts, near zero, as in the paper
_KINK_STEPS = 256  # of the flow in one of descent, where networks have kinks: leaves below 1 % of the deviation


_FOLLOWING = "flow and descent from every start"


class Study(NamedTuple):
    """A complete run on disk."""

    record: records.Record
    fresh: bool  # made just now, not read back


class Way(NamedTuple):
    """Flow and descent from one start, and what is around them."""

    start: np.ndarray
    found: flow.Deviation
    drift: np.ndarray  # [steps, times], from descent with the largest step size
    tube: Tube

    @property
    def times(self) -> np.ndarray:
        """The times to which the flow came."""
        return self.found.times[0][: _reached(self.found)]


def run(options: Flow, *, progress: Callable | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gdstab.studies.options import Quadratic
    >>> small = dict(step_size=0.1, time=1.0, start=(1.0, 1.0), loss=Quadratic((1.0, 2.0)), samples=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Flow(**small, out=Path(folder)))
    >>> row = study.record.summary["ways"][0]["rows"][0]
    >>> round(row["end"], 4), row["bound_until"], row["above_threshold_from"]
    (0.0339, 0.2, None)
    """
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    step_sizes = check_options(options, dtype)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    moving = max(len(options.start), options.starts * dim) * len(step_sizes) * dtype.itemsize
    recorded = int(min(options.points, options.time / options.step_size + 1))
    check_memory(**{"points" if options.points > options.starts else "starts": 2 * moving * (recorded + 2)})
    starts = starting_points(options, loss, dim, dtype)
    record = records.begin(
        options.out, building.configuration(options), overwrite=options.overwrite, resume=options.resume
    )
    if record.complete:
        return Study(record, fresh=False)
    enter(progress, _FOLLOWING)
    ways = []
    for start in starts:
        ways.append(follow(loss, start, step_sizes, options))
        count(progress)
    enter(progress, SAVING)
    provenance = records.provenance(dtype, seed=options.seed)
    record.write_dataset(to_dataset(ways).assign_attrs(provenance=provenance))
    names = ["figure", *(f"start_{number}" for number in range(1, len(ways)))]
    for name, way in zip(names, ways, strict=True):
        figures.save(figures.draw_flow(picture(way, options.radius)), record, name, note=describe(options))
    summary = {
        "parameters": dim,
        "step_sizes": step_sizes.tolist(),
        "kinks": has_kinks(options.loss),
        "ways": [summarise(loss, way) for way in ways],
        "figures": names,
        "provenance": provenance,
    }
    return Study(record.finish(summary), fresh=True)


def phases(options: Flow) -> dict[str, Phase]:
    """What a run goes through."""
    starts = 0 if options.start else max(options.starts, 0)
    return {_FOLLOWING: Phase(10, starts), SAVING: Phase(1)}


def check_options(options: Flow, dtype) -> np.ndarray:
    """The step sizes, the largest first; refuses what cannot be run."""
    for name in ("points", "starts", "samples", "num_matvecs", "max_steps"):
        check_count(getattr(options, name), name)
    check_count(options.curvature_points, "curvature_points", least=2)
    for name in ("seed", "dense_limit"):
        check_count(getattr(options, name), name, least=0)
    for name in ("step_size", "time", "radius", "rtol", "atol", "escape_radius"):
        check_positive(getattr(options, name), name)
    if options.flow_step is not None:
        check_positive(options.flow_step, "flow_step")
    for ratio in options.ratios:
        check_count(ratio, "--ratios", least=2)
    if options.time < options.step_size:
        raise ValueError(
            f"--time takes at least one step of {options.step_size:g}, but got {options.time:g}; lengthen it"
        )
    ratios = np.array([1, *sorted(set(options.ratios))])
    return np.atleast_1d(check_step_sizes(options.step_size / ratios, dtype))


def starting_points(options: Flow, loss: LossFn, dim: int, dtype) -> np.ndarray:
    """The points given, or random ones, [points, dim]."""
    if len(options.start) % dim:
        raise ValueError(f"--start takes {dim} numbers for each point, but got {len(options.start)}; give whole points")
    if options.start:
        points = np.asarray(options.start, dtype).reshape(-1, dim)
        if not np.isfinite(points).all():
            raise ValueError(f"--start takes finite numbers, but got {options.start}; replace inf and nan")
        return points
    network = isinstance(options.loss, opt.Network)
    spread = (1.0 if network else _SPREAD) if options.spread is None else check_positive(options.spread, "spread")
    if network:
        return training.random_networks(options.loss, loss, options.starts, spread, options.seed, dtype)
    return np.asarray(sampling.gaussian(jax.random.key(options.seed), options.starts, dim, spread, dtype=dtype))


def has_kinks(loss: opt.Loss) -> bool | None:
    """Whether the gradient jumps somewhere, so that the theorems do not apply as they stand; None if unknown."""
    if isinstance(loss, opt.Custom):
        return None
    if isinstance(loss, opt.Network):
        return loss.model != "fully-connected" or loss.activation in ("relu", "leaky-relu")
    return getattr(loss, "norm", "l2") == "l1"


def flow_step(options: Flow) -> float | None:
    """The constant step of the flow; None for steps by tolerance."""
    if options.flow_step is None and isinstance(options.loss, opt.Network) and has_kinks(options.loss):
        return options.step_size / _KINK_STEPS
    return options.flow_step


def follow(loss: LossFn, start: np.ndarray, step_sizes: np.ndarray, options: Flow) -> Way:
    """Flow and descent with every step size from one start, and the curvature along the way that the flow came."""
    found = flow.deviation(
        loss, jnp.asarray(start), step_sizes, options.time, points=options.points, estimate_error=True,
        observe=_itself, rtol=options.rtol, atol=options.atol, step=flow_step(options), max_steps=options.max_steps,
        escape_radius=options.escape_radius,
    )  # fmt: skip
    found = jax.tree.map(np.asarray, found)
    come = _reached(found)
    around = tube.measure(
        loss, found.flow_observed[0, :come], found.observed[0, :come], found.times[0, :come], options, step_sizes
    )
    return Way(start, found, drifts(found.observed), around)


def drifts(observed) -> np.ndarray:
    """Distances of every descent from the first, [steps, times], of points [steps, times, ...] or trees of them.

    What has overflowed is infinitely far away.

    >>> drifts(np.array([[[0.0, 0.0]], [[3.0, 4.0]]])).tolist()
    [[0.0], [5.0]]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = [leaf - leaf[:1] for leaf in jax.tree.leaves(observed)]
        squares = sum(np.sum(np.square(gap), axis=tuple(range(2, gap.ndim))) for gap in gaps)
    return np.where(np.isnan(squares), np.inf, np.sqrt(squares))


def summarise(loss: LossFn, way: Way) -> dict:
    """One start: how the flow ended, its curvature, and a row for every step size."""
    found, around, times = way.found, way.tube, way.times
    grid, last = times[around.rows], len(times) - 1
    error = _plain(found.flow_error[0, : last + 1].max())
    worst = found.distance[:, : last + 1].max(axis=1)
    resolved = 1e4 * np.finfo(worst.dtype).eps * np.linalg.norm(way.start)
    clear = np.isfinite(worst) & (worst > 10 * (error or 0.0) + resolved)
    said = flow.diagnose(
        loss, flow.Flow(jnp.asarray(found.flow_theta), found.time, found.status, found.num_steps, None)
    )
    return {
        "start": way.start.tolist() if way.start.size <= 16 else None,
        "flow": {
            "status": flow.FlowStatus(int(found.status)).name.lower(), "said": said, "time": float(found.time),
            "steps": int(found.num_steps), "error": error, "loss": _plain(found.flow_loss[0, last]),
        },
        "order": order(found.step_sizes[clear], worst[clear]),
        "curvature": {
            "smallest": _plain(around.smallest[0].min()), "largest": _plain(around.largest[0].max()),
            "residual": _plain(around.residual), "beta": _plain(around.smoothness.max()),
            "gamma": _plain(around.gradient.max()), "integral_of_m": integral(grid, around.growth),
        },
        "max_step": _plain(around.max_step),
        "rows": [_row(way, number, grid, error or 0.0) for number in range(len(found.step_sizes))],
    }  # fmt: skip


def order(step_sizes: np.ndarray, distances: np.ndarray) -> float | None:
    """With what power of the step size distances grow.

    >>> round(order(np.array([0.2, 0.1]), np.array([0.08, 0.02])), 9)
    2.0
    """
    return float(np.polyfit(np.log(step_sizes), np.log(distances), 1)[0]) if len(step_sizes) > 1 else None


def integral(times: np.ndarray, growth: np.ndarray) -> float | None:
    r"""$\int m(t) \, dt$ by the trapezoidal rule.

    >>> integral(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, -1.0]))
    0.0
    """
    return _plain(np.trapezoid(growth, times)) if len(times) > 1 else None


def _row(way: Way, number: int, grid: np.ndarray, error: float) -> dict:
    """One step size: distances, both bounds, and whether it is too large for the curvature."""
    found, around, last = way.found, way.tube, len(way.times) - 1
    eta, distance = float(found.step_sizes[number]), found.distance[number, : last + 1]
    above = np.flatnonzero(around.largest[0] > 2 / eta)
    bound, local = around.bound[number], around.local[number]
    rounding = np.finfo(distance.dtype).eps * (1 + found.updates[number, : last + 1])
    rounding = rounding * (np.linalg.norm(way.start) + found.travelled[number, : last + 1])
    held, known = distance <= bound + error + rounding, np.isfinite(bound) & (distance > 10 * error)
    return {
        "step_size": eta,
        "largest": _plain(distance.max()),
        "end": _plain(distance[last]),
        "travelled": _plain(found.travelled[number, last]),
        "drift": _plain(way.drift[number, : last + 1].max()),
        "loss": _plain(found.loss[number, last]),
        "bound_until": tube.holds_until(way.times, bound),
        "local_bound_until": tube.holds_until(way.times, local),
        "bound_holds": bool(held.all()),
        "looseness": _plain((bound[known] / distance[known])[-1]) if known.any() else None,
        "above_threshold_from": float(grid[above[0]]) if above.size else None,
    }


def to_dataset(ways: list[Way]) -> xr.Dataset:
    """Everything over time; what is measured in the tube on the times of its own, by their numbers."""
    stack = lambda pick: np.stack([np.asarray(pick(way)) for way in ways])  # noqa: E731
    along = ("start", "step_size", "time")
    names = ("distance", "travelled", "loss")
    data = {name: (along, stack(lambda way, name=name: getattr(way.found, name))) for name in names}
    data["drift"] = (along, stack(lambda way: way.drift))
    for name in ("flow_loss", "flow_error"):
        data[name] = (along[::2], stack(lambda way, name=name: getattr(way.found, name)[0]))
    for name in ("bound", "local"):
        padded = stack(lambda way, name=name: _pad(getattr(way.tube, name), len(ways[0].found.times[0])))
        data[name] = (along, padded)
    grid = max(len(way.tube.rows) for way in ways)
    for name in ("rows", "smallest", "largest", "growth", "smoothness", "gradient"):
        values = stack(lambda way, name=name: _pad(getattr(way.tube, name), grid))
        data[f"tube_{name}"] = (("start", *(("path",) if values.ndim == 3 else ()), "tube_time"), values)
    data["theta0"] = (("start", "parameter"), stack(lambda way: way.start))
    data["theta"] = (("start", "step_size", "parameter"), stack(lambda way: way.found.theta))
    data["flow_theta"] = (("start", "parameter"), stack(lambda way: way.found.flow_theta))
    first = ways[0].found
    return xr.Dataset(data, {"step_size": first.step_sizes, "time": first.times[0], "path": ["flow", "descent"]})


def picture(way: Way, radius: float) -> figures.FlowPicture:
    """What the figure of one start shows."""
    found, around, times = way.found, way.tube, way.times
    upto = slice(0, len(times))
    return figures.FlowPicture(
        step_sizes=found.step_sizes, times=times, distance=found.distance[:, upto],
        travelled=found.travelled[0, upto], flow_error=found.flow_error[0, upto], loss=found.loss[:, upto],
        flow_loss=found.flow_loss[0, upto], grid=times[around.rows], bound=around.bound, local=around.local,
        radius=radius, smallest=around.smallest, largest=around.largest, growth=around.growth,
    )  # fmt: skip


def _reached(found) -> int:
    """How many of the recorded times the flow reached."""
    return int(np.isfinite(found.flow_loss[0]).sum()) or 1


def _pad(values: np.ndarray, length: int) -> np.ndarray:
    """Filled up along the last axis: a flow that stopped early has fewer times than another."""
    rest = [(0, 0)] * (values.ndim - 1) + [(0, length - values.shape[-1])]
    return np.pad(values, rest, constant_values=-1 if values.dtype.kind == "i" else np.nan)


def _plain(value) -> float | None:
    return float(value) if np.isfinite(value) else None


def _itself(theta):
    return theta
