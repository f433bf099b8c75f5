"""Single orbits, one panel for each step size, where they end, and the cycles that some of them end in."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import ensembles, orbits, updates
from gdstab._types import LossFn
from gdstab._validate import check_box, check_step_sizes
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GridSource
from gdstab.studies import building
from gdstab.studies.orbit import Orbit
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.work import Needs, Work
from gdstab.theory import known

FAN = ((0.074, 0.76), (0.30, 0.86), (0.72, 0.60), (0.90, 0.12), (0.556, 0.10), (0.16, 0.22))
"""Where the default orbits of a panel begin, as shares of its box."""

WIDE, CLOSE = ((-0.2, 2.5), (0.0, 2.5)), ((0.7, 1.25), (0.65, 1.2))
"""What the panels of Figure 2 show: the stable minima, and the cycles that are there when none is stable."""

_SIDE = 160  # of the grid of a panel on which the loss is known


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    step_sizes: np.ndarray  # [panels]
    boxes: np.ndarray  # [panels, 2, 2]
    starts: np.ndarray  # [panels, orbits, dim]
    stopping: StoppingRule
    needs: Needs


def prepare(options: Orbit) -> Setting:
    """Build and check everything."""
    loss, dim, dtype = building.problem(options)
    step_sizes = np.atleast_1d(check_step_sizes(options.step_sizes, dtype))
    boxes = _boxes(options, loss)
    starts = _starts(options, boxes, dim).astype(dtype)
    size = starts.size * (options.num_steps + 1) * dtype.itemsize
    background = _SIDE**2 * len(boxes) * dtype.itemsize
    needs = Needs({"num_steps": 2 * size}, size + background)
    return Setting(loss, step_sizes, boxes, starts, building.build_stopping(options), needs)


def phases(_: Orbit) -> dict[str, Phase]:
    """What a run goes through."""
    return {"ends": Phase(1), "paths": Phase(1), SAVING: Phase(2)}


def measure(options: Orbit, setting: Setting, work: Work):
    """Run every orbit to its end; then keep the first updates of each, and the cycle that it ends in."""
    rule, loss, panels = updates.gradient_descent(), setting.loss, (setting.starts, setting.step_sizes)
    work.enter("ends")
    ends = [ensembles.run(rule, loss, points, step, setting.stopping) for points, step in zip(*panels, strict=True)]
    work.enter("paths")
    paths = [follow(rule, loss, points, step, options.num_steps) for points, step in zip(*panels, strict=True)]
    summary = {"orbits": _rows(setting, ends)}
    if len(summary["orbits"]) == 1:
        summary["path"] = paths[0][0]
    return _dataset(setting, np.stack(paths), ends, _cycles(rule, setting, ends)), summary


def follow(rule, loss, starts, step_size, num_steps: int) -> np.ndarray:
    """Orbits `[points, num_steps + 1, dim]`, the initial points first; one that leaves runs into inf and nan."""
    path = orbits.rollout(rule, num_steps)
    step_size = jnp.asarray(step_size, starts.dtype)

    def walk(theta):
        return path(loss, rule.init(theta, step_size), step_size)[1]

    return np.concatenate([starts[:, None], ensembles.map_points(walk, starts)], axis=1)


def _boxes(options: Orbit, loss: LossFn) -> np.ndarray:
    """One box for each step size; a single box serves all. Closer where no minimum of a product is stable."""
    about = known(loss)
    critical = np.inf if about.hyperbola is None else about.critical_step
    boxes = options.boxes or [CLOSE if step > critical else WIDE for step in options.step_sizes]
    boxes = list(boxes) * (len(options.step_sizes) if len(boxes) == 1 else 1)
    if len(boxes) != len(options.step_sizes):
        raise ValueError(
            f"--boxes takes one box for all step sizes, or one for each of the {len(options.step_sizes)}, but got "
            f"{len(boxes)}: give four numbers per panel"
        )
    return np.stack([check_box(box, 2) for box in boxes])


def _starts(options: Orbit, boxes: np.ndarray, dim: int) -> np.ndarray:
    """Initial points `[panels, orbits, dim]`."""
    if options.start:
        return np.repeat(building.given_points(options, dim, float)[None], len(boxes), axis=0)
    if dim != 2:
        raise ValueError(f"the loss has {dim} parameters: give the initial points with --start, {dim} numbers each")
    return boxes[:, None, :, 0] + np.asarray(FAN) * (boxes[:, None, :, 1] - boxes[:, None, :, 0])


def _rows(setting: Setting, ends) -> list[dict]:
    """One row per orbit."""
    return [
        {
            "step_size": step, "start": start, "outcome": Outcome(int(end.outcome[i])).name.lower(),
            "steps": int(end.steps[i]), "period": int(end.period[i]), "end": end.theta[i], "loss": end.loss[i],
        }
        for step, points, end in zip(setting.step_sizes, setting.starts, ends, strict=True)
        for i, start in enumerate(points)
    ]  # fmt: skip


def _cycles(rule, setting: Setting, ends) -> np.ndarray:
    """The cycles that orbits end in, `[panels, orbits, longest period, dim]`; NaN behind the period of each."""
    longest = max(int(end.period.max()) for end in ends)
    if not longest:
        return np.empty((*setting.starts.shape[:2], 0, setting.starts.shape[2]), setting.starts.dtype)
    cycles = np.stack([
        follow(rule, setting.loss, end.theta, step, longest - 1)
        for end, step in zip(ends, setting.step_sizes, strict=True)
    ])  # fmt: skip
    periods = np.stack([end.period for end in ends])
    cycles[np.arange(longest) >= periods[..., None]] = np.nan
    return cycles


def _dataset(setting: Setting, paths: np.ndarray, ends, cycles: np.ndarray) -> xr.Dataset:
    """Paths, ends and cycles; the boxes of the panels, and in two dimensions the loss above its floor on a grid."""
    dims = ("step_size", "orbit")
    data = {name: (dims, np.stack([getattr(end, name) for end in ends])) for name in ("outcome", "steps", "period")}
    data |= {
        "theta": ((*dims, "step", "coordinate"), paths),
        "end": ((*dims, "coordinate"), np.stack([end.theta for end in ends])),
        "end_loss": (dims, np.stack([end.loss for end in ends])),
        "cycle": ((*dims, "phase", "coordinate"), cycles),
        "box": (("step_size", "axis", "edge"), setting.boxes),
    }
    names = " ".join(verdict.name.lower() for verdict in Outcome)
    data["outcome"] += ({"flag_values": [int(verdict) for verdict in Outcome], "flag_meanings": names},)
    if paths.shape[-1] == 2:
        grids = [_excess(setting.loss, box, paths.dtype) for box in setting.boxes]
        data["excess_loss"] = (("step_size", "row", "column"), np.stack(grids))
    return xr.Dataset(data, {"step_size": setting.step_sizes, "step": np.arange(paths.shape[2])})


def _excess(loss: LossFn, box: np.ndarray, dtype) -> np.ndarray:
    """The loss above its floor at the centres of the cells of a box, `[y, x]`."""
    points = GridSource(box, (_SIDE, _SIDE), dtype=dtype)(jnp.arange(_SIDE**2))
    excess = ensembles.map_points(loss, points) - float(getattr(loss, "loss_floor", 0.0))
    return excess.reshape(_SIDE, _SIDE).T
