"""How far descent strays from gradient flow: distances for several step sizes, curvature, and the bound of paper D."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import flow, sampling
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.losses import ConvolutionalNetwork, NetworkRisk
from gdstab.losses.pullback import Identity, Pullback
from gdstab.studies import building, training
from gdstab.studies.flow import Flow, tube
from gdstab.studies.flow.tube import Tube
from gdstab.studies.phases import SAVING, Phase, count
from gdstab.studies.work import Needs, Work, check_memory

_SPREAD = 0.3  # of random starts, near zero, as in the paper
_KINK_STEPS = 256  # of the flow in one of descent, where networks have kinks: leaves below 1 % of the deviation
_FOLLOWING = "flow and descent from every start"


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    step_sizes: np.ndarray  # the largest first
    starts: np.ndarray  # [starts, dim]
    needs: Needs


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


def prepare(options: Flow) -> Setting:
    """Build and check everything."""
    loss, dim, dtype = building.problem(options)
    step_sizes = check_options(options, dtype)
    moving = max(len(options.start), options.starts * dim) * len(step_sizes) * dtype.itemsize
    recorded = int(min(options.points, options.time / options.step_size + 1))
    memory = {"points" if options.points > options.starts else "starts": 2 * moving * (recorded + 2)}
    check_memory(**memory)  # before the starts are drawn
    return Setting(loss, step_sizes, starting_points(options, loss, dim, dtype), Needs(memory))


def phases(options: Flow) -> dict[str, Phase]:
    """What a run goes through."""
    starts = 0 if options.start else max(options.starts, 0)
    return {_FOLLOWING: Phase(10, starts), SAVING: Phase(1)}


def measure(options: Flow, setting: Setting, work: Work):
    """Follow flow and descent from every start.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gdstab.studies import run
    >>> from gdstab.studies.options import Quadratic
    >>> small = dict(step_size=0.1, time=1.0, start=(1.0, 1.0), loss=Quadratic((1.0, 2.0)), samples=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Flow(**small, out=Path(folder)))
    >>> row = study.record.summary["ways"][0]["rows"][0]
    >>> round(row["end"], 4), row["bound_until"], row["above_threshold_from"]
    (0.0339, 0.2, None)
    """
    work.enter(_FOLLOWING)
    ways = []
    for start in setting.starts:
        ways.append(follow(setting.loss, start, setting.step_sizes, options))
        count(work.progress)
    return to_dataset(ways), {
        "parameters": setting.starts.shape[1], "step_sizes": setting.step_sizes, "kinks": has_kinks(setting.loss),
        "ways": [summarise(setting.loss, way) for way in ways],
        "figures": ["figure", *(f"start_{number}" for number in range(1, len(ways)))],
    }  # fmt: skip


def check_options(options: Flow, dtype) -> np.ndarray:
    """The step sizes, the largest first; refuses what cannot be run."""
    if options.time < options.step_size:
        raise ValueError(
            f"--time takes at least one step of {options.step_size:g}, but got {options.time:g}; lengthen it"
        )
    ratios = np.array([1, *sorted(set(options.ratios))])
    return np.atleast_1d(check_step_sizes(options.step_size / ratios, dtype))


def starting_points(options: Flow, loss: LossFn, dim: int, dtype) -> np.ndarray:
    """The points given, or random ones, [points, dim]."""
    if options.start:
        return building.given_points(options, dim, dtype)
    network = isinstance(_inside(loss), NetworkRisk)
    spread = (1.0 if network else _SPREAD) if options.spread is None else options.spread
    if network:
        return training.random_networks(options.loss, loss, options.starts, spread, options.seed, dtype)
    return np.asarray(sampling.gaussian(jax.random.key(options.seed), options.starts, dim, spread, dtype=dtype))


def has_kinks(loss: LossFn) -> bool | None:
    """Whether the gradient jumps somewhere, so that the theorems do not apply as they stand; None if unknown."""
    inside = _inside(loss)
    if isinstance(inside, NetworkRisk):
        network = inside.network
        return isinstance(network, ConvolutionalNetwork) or network.activation in {"relu", "leaky_relu"}
    if isinstance(getattr(loss, "map", None), Identity):  # a user's own
        return None
    return getattr(inside, "norm", "l2") == "l1"


def flow_step(options: Flow, loss: LossFn) -> float | None:
    """The constant step of the flow; None for steps by tolerance."""
    if options.flow_step is None and isinstance(_inside(loss), NetworkRisk) and has_kinks(loss):
        return options.step_size / _KINK_STEPS
    return options.flow_step


def _inside(loss: LossFn) -> LossFn:
    """The loss that is pulled back to one vector."""
    return loss.loss if isinstance(loss, Pullback) else loss


def follow(loss: LossFn, start: np.ndarray, step_sizes: np.ndarray, options: Flow) -> Way:
    """Flow and descent with every step size from one start, and the curvature along the way that the flow came."""
    found = flow.deviation(
        loss, jnp.asarray(start), step_sizes, options.time, points=options.points, estimate_error=True,
        observe=itself, rtol=options.rtol, atol=options.atol, step=flow_step(options, loss),
        max_steps=options.max_steps, escape_radius=options.escape_radius,
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
    error = found.flow_error[0, : last + 1].max()
    slack = float(error) if np.isfinite(error) else 0.0
    worst = found.distance[:, : last + 1].max(axis=1)
    resolved = 1e4 * np.finfo(worst.dtype).eps * np.linalg.norm(way.start)
    clear = np.isfinite(worst) & (worst > 10 * slack + resolved)
    said = flow.diagnose(
        loss, flow.Flow(jnp.asarray(found.flow_theta), found.time, found.status, found.num_steps, None)
    )
    return {
        "start": way.start.tolist() if way.start.size <= 16 else None,
        "flow": {
            "status": flow.FlowStatus(int(found.status)).name.lower(), "said": said, "time": float(found.time),
            "steps": int(found.num_steps), "error": error, "loss": found.flow_loss[0, last],
        },
        "order": order(found.step_sizes[clear], worst[clear]),
        "curvature": {
            "smallest": around.smallest[0].min(), "largest": around.largest[0].max(),
            "residual": around.residual, "beta": around.smoothness.max(),
            "gamma": around.gradient.max(), "integral_of_m": integral(grid, around.growth),
        },
        "max_step": around.max_step,
        "rows": [_row(way, number, grid, slack) for number in range(len(found.step_sizes))],
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
    return float(np.trapezoid(growth, times)) if len(times) > 1 else None


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
        "step_size": eta, "largest": distance.max(), "end": distance[last], "travelled": found.travelled[number, last],
        "drift": way.drift[number, : last + 1].max(), "loss": found.loss[number, last],
        "bound_until": tube.holds_until(way.times, bound), "local_bound_until": tube.holds_until(way.times, local),
        "bound_holds": bool(held.all()), "looseness": (bound[known] / distance[known])[-1] if known.any() else None,
        "above_threshold_from": float(grid[above[0]]) if above.size else None,
    }  # fmt: skip


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


def _reached(found) -> int:
    """How many of the recorded times the flow reached."""
    return int(np.isfinite(found.flow_loss[0]).sum()) or 1


def _pad(values: np.ndarray, length: int) -> np.ndarray:
    """Filled up along the last axis: a flow that stopped early has fewer times than another."""
    rest = [(0, 0)] * (values.ndim - 1) + [(0, length - values.shape[-1])]
    return np.pad(values, rest, constant_values=-1 if values.dtype.kind == "i" else np.nan)


def itself(theta):
    """What is kept of a point: all of it."""
    return theta
