"""The figures of paper A: the studies heatmap, critical and orbit at the paper's numbers."""

from gdstab.studies import building
from gdstab.studies.critical import show as critical_shown
from gdstab.studies.critical import study as critical
from gdstab.studies.heatmap import show as heatmap_shown
from gdstab.studies.heatmap import study as heatmap
from gdstab.studies.options.reproduce import FigureA1a, FigureA1b, FigureA2
from gdstab.studies.orbit import show as orbit_shown
from gdstab.studies.orbit import study as orbit
from gdstab.studies.reproduce.study import Figure, Row
from gdstab.studies.tables import number
from gdstab.theory import known


def shows_1a(options: FigureA1a) -> str:
    """What is drawn."""
    return (
        f"Updates until gradient descent converges at step size {options.step_size:g}; black: the minima, dashed: the "
        "stable ones, as in the paper; the exact edge of the basin is drawn in addition."
    )


def compare_1a(options: FigureA1a, summary: dict, _) -> list[Row]:
    """What does not converge must diverge, as the caption says, and on the exact side of the ellipse."""
    counts, theory = summary["counts"], summary["theory"]
    rest = summary["cells"] - sum(counts[name] for name in ("converged", "diverged", "nonfinite"))
    rows = [
        Row("step size", "0.3", f"{options.step_size:g}"),
        Row("cells that neither converge nor diverge", "0", f"{rest:,}"),
        Row("share of the cells that converge", "-", f"{summary['fractions']['converged']:.6f}"),
    ]
    if theory["exact_share"] is not None:
        rows += [
            Row("the same, from the exact ellipse", "-", f"{theory['exact_share']:.6f}"),
            Row("verdicts against the ellipse", "-", f"{theory['contradictions']}"),
        ]
    saddle = summary["kinds"]["strict_saddle"]
    return [*rows, Row("cells of the anti-diagonal, which go to the saddle", "-", f"{saddle:,}")]


def shows_1b(_: FigureA1b) -> str:
    """What is drawn."""
    return (
        "Left, as in the paper: the area of the trapping region over that of the rectangle, and the length of the "
        "stable minima over that of the hyperbola in it, against the step size. Right: thresholds of random minima."
    )


def compare_1b(options: FigureA1b, summary: dict, _) -> list[Row]:
    """The stable minima vanish at the critical step size, and what is trapped beyond does not converge.

    The paper prints eta_C = 1 for the loss with the factor 1/2 (Theorem 16, Appendix B); the figure's loss has the
    factor 1, which halves it.
    """
    product = known(building.build_loss(options.loss)[0]).hyperbola
    printed = "-" if product is None else f"{1 / (2 * product.scale * product.target):g}"
    rows = [Row("critical step size", printed, number(summary["critical_step"], ".9g"))]
    if product is None:
        return rows
    for name, words in (("trapped", "area of the trapping region"), ("stable_length", "length of stable minima")):
        error = max(abs(row[name] - row[f"exact_{name}"]) for row in summary["rows"])
        rows.append(Row(f"{words}: largest error against the closed form", "-", f"{error:.2g}"))
    beyond = [row for row in summary["rows"] if row["step_size"] > summary["critical_step"] * (1 + 1e-9)]
    for name, words in (("stable_length", "stable length"), ("converged", "share that converges (to the saddle)")):
        most = f"{max(row[name] for row in beyond):.2g}" if beyond else "-"
        rows.append(Row(f"largest {words} above the critical step size", "0", most))
    return rows


def shows_2(_: FigureA2) -> str:
    """What is drawn."""
    return "Orbits at two step sizes in the regions of the paper; red: the stable minima, which vanish in between."


def compare_2(options: FigureA2, summary: dict, _) -> list[Row]:
    """Below the critical step size every orbit ends at a stable minimum, above it none converges."""
    product, orbits = known(building.build_loss(options.loss)[0]).hyperbola, summary["orbits"]
    critical = None if product is None else 1 / (2 * product.scale * product.target)
    rows = [] if critical is None else [Row("critical step size", "1", f"{critical:g}")]
    for eta in dict.fromkeys(row["step_size"] for row in orbits):
        ends = [row for row in orbits if row["step_size"] == eta]
        settled = [row for row in ends if row["outcome"] == "converged"]
        printed = "-" if critical is None else "all" if eta < critical else "none"
        rows.append(Row(f"step size {eta:g}: orbits that converge", printed, f"{len(settled)} of {len(ends)}"))
        if critical is not None and settled:
            far, bound = max(sum(x * x for x in row["end"]) for row in settled), 1 / (product.scale * eta)
            rows.append(Row("largest x^2 + y^2 at their ends, stable below", f"{bound:g}", f"{far:.4g}"))
        cycles = sorted({row["period"] for row in ends if row["outcome"] == "cycling"})
        if cycles:
            rows.append(Row("periods of the cycles that the others end on", "-", ", ".join(map(str, cycles))))
    return rows


FIGURES = {
    "A.1a": Figure(heatmap.prepare, heatmap.phases, heatmap.measure, heatmap_shown.draw, shows_1a, compare_1a),
    "A.1b": Figure(critical.prepare, critical.phases, critical.measure, critical_shown.draw, shows_1b, compare_1b),
    "A.2": Figure(orbit.prepare, orbit.phases, orbit.measure, orbit_shown.draw, shows_2, compare_2),
}
"""By name."""
