"""The study behind Figure 2 of paper A: single orbits, one panel for each step size, and where they end."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import ensembles, figures, orbits, records, updates
from gdstab._validate import check_box, check_count, check_loss, check_step_sizes
from gdstab.outcomes import Outcome
from gdstab.sampling import GridSource
from gdstab.studies import building
from gdstab.studies.heatmap.study import hyperbola
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Orbit, Scalar, describe
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.theory import scalar

FAN = ((0.074, 0.76), (0.30, 0.86), (0.72, 0.60), (0.90, 0.12), (0.556, 0.10), (0.16, 0.22))
"""Where the default orbits of a panel begin, as shares of its box."""


WIDE, CLOSE = ((-0.2, 2.5), (0.0, 2.5)), ((0.7, 1.25), (0.65, 1.2))
"""What the panels of Figure 2 show: the stable minima, and the cycles that are there when none is stable."""


class Study(NamedTuple):
    """A complete run on disk; its `dataset` holds the orbits."""

    record: records.Record
    fresh: bool  # made just now, not read back


def run(options: Orbit, *, progress: Callable | None = None) -> Study:
    """Follow every orbit, say how it ends, draw the panels; or read the run back where it is complete."""
    dtype = building.check_precision(options.precision)
    loss, dim = building.build_loss(options.loss)
    step_sizes = np.atleast_1d(check_step_sizes(options.step_sizes, dtype))
    check_count(options.num_steps, "num_steps", least=0)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    building.check_tolerances(options, loss, dim)
    boxes = _boxes(options)
    starts = _starts(options, boxes, dim).astype(dtype)
    stopping = building.build_stopping(options)
    check_memory(num_steps=2 * starts.size * (options.num_steps + 1) * dtype.itemsize)
    record = records.begin(
        options.out, building.configuration(options), overwrite=options.overwrite, resume=options.resume
    )
    if record.complete:
        return Study(record, fresh=False)
    enter(progress, "ends")
    rule = updates.gradient_descent()
    ends = [ensembles.run(rule, loss, points, step, stopping) for points, step in zip(starts, step_sizes, strict=True)]
    enter(progress, "paths")
    paths = np.stack([
        follow(rule, loss, points, step, options.num_steps) for points, step in zip(starts, step_sizes, strict=True)
    ])  # fmt: skip
    enter(progress, SAVING)
    dataset = _dataset(step_sizes, paths, ends)
    provenance = records.provenance(dtype)
    record.write_dataset(dataset.assign_attrs(provenance=provenance))
    panels = [
        figures.Panel(
            step_size=float(step), box=box, paths=[path[:, :2] for path in panel_paths],
            attractors=_cycles(rule, loss, end, step), overlay=_overlay(options, float(step), box),
            background=_background(loss, box, dtype) if dim == 2 else None,
        )
        for step, box, panel_paths, end in zip(step_sizes, boxes, paths, ends, strict=True)
    ]  # fmt: skip
    figures.save(figures.draw_trajectories(panels), record, note=describe(options))
    return Study(record.finish({"orbits": _table(step_sizes, starts, ends), "provenance": provenance}), fresh=True)


PHASES = {"ends": Phase(1), "paths": Phase(1), SAVING: Phase(2)}
"""What a run goes through."""


def follow(rule, loss, starts, step_size, num_steps: int) -> np.ndarray:
    """Orbits `[points, num_steps + 1, dim]`, the initial points first; one that leaves runs into inf and nan."""
    path = orbits.rollout(rule, num_steps)
    step_size = jnp.asarray(step_size, starts.dtype)

    def walk(theta):
        return path(loss, rule.init(theta, step_size), step_size)[1]

    return np.concatenate([starts[:, None], ensembles.map_points(walk, starts)], axis=1)


def _boxes(options: Orbit) -> list:
    """One box for each step size; a single box serves all."""
    given = options.boxes or [CLOSE if _beyond(options.loss, step) else WIDE for step in options.step_sizes]
    boxes = list(given) * (len(options.step_sizes) if len(given) == 1 else 1)
    if len(boxes) != len(options.step_sizes):
        raise ValueError(
            f"--boxes takes one box for all step sizes, or one for each of the {len(options.step_sizes)}, but got "
            f"{len(boxes)}: give four numbers per panel"
        )
    return [tuple(map(tuple, check_box(box, 2).tolist())) for box in boxes]


def _beyond(loss, step_size: float) -> bool:
    """Whether no minimum of a product of two scalars is stable at this step size."""
    return _is_product(loss) and step_size > scalar.critical_step(loss.target, loss.scale)


def _is_product(loss) -> bool:
    return isinstance(loss, Scalar) and loss.depth == 2 and loss.target > 0


def _starts(options: Orbit, boxes, dim: int) -> np.ndarray:
    """Initial points `[panels, orbits, dim]`."""
    if options.start:
        if len(options.start) % dim:
            raise ValueError(f"--start takes points of {dim} numbers each, but got {len(options.start)} numbers")
        if not np.isfinite(options.start).all():
            raise ValueError(f"--start takes finite numbers, but got {options.start}; replace inf and nan")
        points = np.reshape(options.start, (1, -1, dim))
        return np.repeat(points, len(boxes), axis=0)
    if dim != 2:
        raise ValueError(f"the loss has {dim} parameters: give the initial points with --start, {dim} numbers each")
    sides = np.asarray(boxes, float)  # [panels, 2, 2]
    return sides[:, None, :, 0] + np.asarray(FAN) * (sides[:, None, :, 1] - sides[:, None, :, 0])


def _dataset(step_sizes, paths, ends) -> xr.Dataset:
    dims = ("step_size", "orbit")
    data = {name: (dims, np.stack([getattr(end, name) for end in ends])) for name in ("outcome", "steps", "period")}
    data |= {
        "theta": ((*dims, "step", "coordinate"), paths),
        "end": ((*dims, "coordinate"), np.stack([end.theta for end in ends])),
        "end_loss": (dims, np.stack([end.loss for end in ends])),
    }
    names = " ".join(verdict.name.lower() for verdict in Outcome)
    data["outcome"] += ({"flag_values": [int(verdict) for verdict in Outcome], "flag_meanings": names},)
    return xr.Dataset(data, {"step_size": step_sizes, "step": np.arange(paths.shape[2])})


def _table(step_sizes, starts, ends) -> list[dict]:
    """One row per orbit, as plain numbers; what is not finite is null."""
    rows = []
    for step, points, end in zip(step_sizes, starts, ends, strict=True):
        for i, start in enumerate(points):
            last = [float(x) if np.isfinite(x) else None for x in (*end.theta[i], end.loss[i])]
            rows.append({
                "step_size": float(step), "start": start.tolist(), "outcome": Outcome(int(end.outcome[i])).name.lower(),
                "steps": int(end.steps[i]), "period": int(end.period[i]), "end": last[:-1], "loss": last[-1],
            })  # fmt: skip
    return rows


def _cycles(rule, loss, end, step_size) -> list[np.ndarray]:
    """The different cycles that orbits ended in, `[period, 2]` each."""
    found = []
    for theta, period in zip(end.theta, end.period, strict=True):
        if period and not any(
            np.linalg.norm(theta[:2] - cycle, axis=1).min() < 1e-3 * np.abs(cycle).max() for cycle in found
        ):
            found.append(follow(rule, loss, theta[None], step_size, int(period) - 1)[0][:, :2])
    return found


def _overlay(options: Orbit, step_size: float, box) -> figures.Overlay:
    loss = options.loss
    if not _is_product(loss):
        return figures.Overlay()
    return figures.Overlay(*hyperbola(step_size, box, loss.target, loss.scale))


def _background(loss, box, dtype, num: int = 160):
    """The loss above its floor on a grid of the panel."""
    grid = GridSource(box, (num, num), dtype=dtype)
    points = grid(jnp.arange(num * num))
    excess = ensembles.map_points(loss, points) - float(getattr(loss, "loss_floor", 0.0))
    x, y = np.asarray(points).reshape(num, num, 2).transpose(2, 0, 1)
    return x[:, 0], y[0], excess.reshape(num, num).T
