"""The table of single orbits, and their paths over the level sets of the loss."""

import numpy as np

from gdstab import figures, records
from gdstab.sampling import grid
from gdstab.studies import building
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number
from gdstab.theory import known


def table(summary: dict) -> str:
    """How every orbit ends; the steps, too, if there is only one."""
    header = ("step size", "start", "outcome", "steps", "period", "end", "loss")
    ends = columns([header, *map(_row, summary["orbits"])])
    if "path" not in summary:
        return ends
    path = summary["path"]
    names = [f"x{i}" for i in range(len(path[0]))]
    return (
        columns([("step", *names), *((step, *map(number, point)) for step, point in enumerate(path))]) + f"\n\n{ends}"
    )


def _row(row: dict) -> tuple:
    step_size, period, loss = f"{row['step_size']:g}", row["period"] or "-", number(row["loss"], ".3g")
    return step_size, _point(row["start"]), row["outcome"], row["steps"], period, _point(row["end"]), loss


def _point(point: list) -> str:
    return "(" + ", ".join(number(x, ".4g") for x in point) + ")"


def draw(record: records.Record) -> dict:
    """One panel for each step size."""
    about = known(building.build_loss(read(record.configuration).loss)[0])
    dataset = record.dataset
    panels = [_panel(dataset.isel(step_size=i), about) for i in range(dataset.sizes["step_size"])]
    return {"figure": figures.draw_trajectories(panels)}


def _panel(one, about) -> figures.Panel:
    """What the dataset of one step size shows; the first two coordinates, where there are more."""
    box, step_size = one["box"].values, float(one["step_size"])
    curves = about.minima(box, step_size)
    background = None
    if "excess_loss" in one:
        excess = one["excess_loss"].values
        background = (*(np.asarray(grid([side], len(excess)))[:, 0] for side in box), excess)
    names = ("$x$", "$y$") if one.sizes["coordinate"] == 2 else (r"$\theta_1$", r"$\theta_2$")
    return figures.Panel(
        step_size=step_size, box=tuple(map(tuple, box.tolist())), paths=list(one["theta"].values[..., :2]),
        attractors=_different(one["cycle"].values[..., :2]), background=background,
        overlay=figures.Overlay() if curves is None else figures.Overlay(*curves), names=names,
    )  # fmt: skip


def _different(cycles: np.ndarray) -> list[np.ndarray]:
    """The different ones `[period, 2]` among cycles `[orbits, longest period, 2]` that orbits ended in."""
    found: list[np.ndarray] = []
    for cycle in (cycle[np.isfinite(cycle).all(axis=1)] for cycle in cycles):
        near = (np.linalg.norm(cycle[0] - other, axis=1).min() < 1e-3 * np.abs(other).max() for other in found)
        if len(cycle) and not any(near):
            found.append(cycle)
    return found
