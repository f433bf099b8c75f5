"""The table of doublings, ends and sweeps, and the figure of the orbits against the step size."""

import numpy as np
import xarray as xr

from gdstab import bifurcation, figures, records, theory
from gdstab.studies import building
from gdstab.studies.bifurcation import Bifurcation, cascades
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number


def table(summary: dict) -> str:
    """The doublings, where chaos begins, where bounded orbits end, and whether it matters where orbits come from."""
    return "\n".join([_doublings(summary), "", *_ends(summary), *_hysteresis(summary["hysteresis"])])


def _doublings(summary: dict) -> str:
    """The doublings with the step sizes of the diagram that they lie between, and what is known exactly."""
    exact = (summary["exact"] or {"doublings": []})["doublings"]
    rows = [("doubling of period", "step size", "exact", "seen between", "and", "ratio of gaps")]
    for i, (period, step_size) in enumerate(zip(summary["periods"], summary["doublings"], strict=True)):
        ratios = summary["feigenbaum_ratios"]
        rows.append((
            period, f"{step_size:.10f}", f"{exact[i]:.10f}" if i < len(exact) else "-",
            *map(number, summary["seen_between"][i]), f"{ratios[i - 2]:.4f}" if i >= 2 else "-",
        ))  # fmt: skip
    for attractor, other in enumerate(summary["others"], start=2):
        for period, step_size in zip(other["periods"], other["doublings"], strict=True):
            rows.append((f"{period}, attractor {attractor}", f"{step_size:.10f}", "-", "-", "-", "-"))
    return columns(rows) if len(rows) > 1 else f"no period doublings: {summary['ended']}"


def _ends(summary: dict) -> list[str]:
    exact = summary["exact"] or {"accumulation": None, "last_bounded": None}
    rows = [("", "found", "exact")]
    for name, text in (("accumulation", "doublings accumulate at"), ("last_bounded", "bounded orbits end at")):
        rows.append((text, number(summary[name]), number(exact[name])))
    bounded = sum(row["bounded"] for row in summary["rows"]) / len(summary["rows"])
    about = (
        f"{summary['orbits']:,} orbits, {100 * bounded:.4g} % of them bounded; {summary['lane_steps']:.4g} lane-steps "
        f"in {summary['run_seconds']:.2f} s with compilation"
    )
    return [columns(rows), about]


def _hysteresis(found: dict | None) -> list[str]:
    if found is None:
        return []
    text = f"up and down again: {100 * found['share_different']:.3g} % of {found['step_sizes']} step sizes end apart"
    if found["different"]:
        text += f" (most at {found['at']:.4g}, by {found['largest_gap']:.4g})"
    return [text]


def draw(record: records.Record) -> dict:
    """The diagram with what is known of it, the closer look, and the sweeps."""
    options, dataset = read(record.configuration), record.dataset.load()
    picture = figures.draw_bifurcation(
        diagram_of(dataset, record.summary), marks(options, record.summary), close_of(dataset), sweeps_of(dataset)
    )
    return {"figure": picture}


def diagram_of(dataset: xr.Dataset, summary: dict) -> bifurcation.OrbitDiagram:
    """The diagram of a run, without the last states."""
    found = {name: dataset[name].values for name in ("counts", "outside", "period")}
    edges = np.linspace(*summary["value_range"], dataset.sizes["bin"] + 1)
    return bifurcation.OrbitDiagram(
        step_sizes=dataset["step_size"].values, **found, escaped=dataset["escaped"].values.astype(bool), state=None,
        values=None, edges=edges, lane_steps=summary["lane_steps"], run_seconds=summary["run_seconds"],
    )  # fmt: skip


def close_of(dataset: xr.Dataset) -> figures.Density | None:
    """The closer look, where there was one."""
    if "zoom_counts" not in dataset:
        return None
    seen = dataset["zoom_counts"]
    edges = np.linspace(*seen.attrs["value_range"], dataset.sizes["zoom_bin"] + 1)
    return figures.Density(dataset["zoom_step_size"].values, seen.values, edges)


def sweeps_of(dataset: xr.Dataset) -> bifurcation.Hysteresis | None:
    """The sweeps, where there were any."""
    if "up" not in dataset:
        return None
    ways = [dataset[name].values for name in ("up", "down")]
    escaped = [np.isnan(way).any(axis=2) for way in ways]
    return bifurcation.Hysteresis(dataset["swept_step_size"].values, *ways, *escaped, run_seconds=0.0)


def marks(options: Bifurcation, summary: dict) -> figures.Marks:
    """What is drawn beside the orbits."""
    loss, dim = building.build_loss(options.loss)
    product = theory.known(loss).hyperbola
    labels = {"first": r"$\theta_0$", "norm": r"$\|\theta\|$", "loss": r"$L(\theta)$"}
    labels["diagonal"] = r"$(x + y)/\sqrt{2}$" if dim == 2 else r"$\sum_i \theta_i / \sqrt{n}$"
    cascade = [summary, *summary["others"]]
    return figures.Marks(
        observed=labels[options.observe],
        doublings=sorted(pair for one in cascade for pair in zip(one["doublings"], one["periods"], strict=True)),
        accumulation=summary["accumulation"],
        last_bounded=summary["last_bounded"],
        curves=cascades.closed_forms(options, loss),
        per_step=None if product is None else product.reduced(1.0),
        number=r"$k = 2 c \eta$" if product is not None and product.target == 1 else r"$2 c a \eta$",
    )
