"""The table of critical steps, and their map with what is exactly known in its plane."""

import numpy as np

from gdstab import basins, figures, records
from gdstab.studies import building, labels
from gdstab.studies.heatmap.study import hyperbola_in
from gdstab.studies.options import read
from gdstab.studies.tables import columns, counted, timing
from gdstab.theory import known, scalar


def table(summary: dict) -> str:
    """The law of the critical steps, and how it agrees with the theory."""
    quantiles = {share: value for share, value in summary["quantiles"].items() if value is not None}
    header = (f"{summary['cells']:,} cells", *(f"{100 * float(share):g} %" for share in quantiles))
    lines = [columns([header, ("critical step", *(f"{value:.4g}" for value in quantiles.values()))]), ""]
    lines.append(f"just above it: {counted(summary['above'], none='nothing seen')}")
    if summary["kinds"] is not None:
        lines.append(f"just below it they converge to: {counted(summary['kinds'])}")
    if "attractors" in summary:
        lines[1:1] = ["", labels.table(summary, summary["cells"])]
    lines.append(
        f"the converging step sizes are no interval: {summary['flagged']:,} cells; none converges: "
        f"{summary['none_converges']:,}; all converge: {summary['all_converge']:,}"
    )
    return "\n".join([*lines, *_against_theory(summary["theory"]), f"{summary['orbits']:,} orbits, {timing(summary)}"])


def _against_theory(theory: dict) -> list[str]:
    lines = []
    if theory["critical_step"] is not None:
        lines.append(f"critical step of the minima: {theory['critical_step']:.10g}")
    for name, words in (("below", "below 0.98 of it"), ("elsewhere", "elsewhere")):
        error = theory[f"max_relative_error_{name}"]
        if error is not None:
            error, cells = float(error), theory[f"cells_{name}"]
            lines.append(f"largest relative error against the closed form, {words}: {error:.3g} ({cells:,} cells)")
    return lines


def draw(record: records.Record) -> dict:
    """The map; with labels, that of the attractors as a figure of its own."""
    found = picture(record)
    drawn = {"figure": figures.draw_critical_map(found)}
    if found.attractors is not None:
        drawn["attractors"] = figures.draw_critical_attractors(found)
    return drawn


def picture(record: records.Record) -> figures.CriticalMap:
    """What the figure shows; the minima and the exact level lines where they are known."""
    options, dataset = read(record.configuration), record.dataset
    loss, _ = building.build_loss(options.loss)
    product, minima, lines = hyperbola_in(options, loss), [], None
    if product is not None:
        minima, _ = known(loss).minima(options.box, options.high)

        def lines(step_size):
            return scalar.ellipse_curve(step_size, product.target, product.scale)

    return figures.CriticalMap(
        eta=dataset["eta"].values, flagged=dataset["flag"].values,
        all_converge=np.isinf(dataset["high"].values) & ~dataset["flag"].values, box=options.box,
        axes=tuple(map(str, dataset["eta"].dims)), critical_step=record.summary["theory"]["critical_step"],
        minima=minima, level_line=lines, attractors=basins.Attractors.from_xarray(dataset),
        label=dataset["label"].values if "label" in dataset else None,
    )  # fmt: skip
