"""Figure 2 of paper A, both panels: the orbit study at the paper's numbers."""

from gdstab.studies import building
from gdstab.studies.options.reproduce import FigureA2
from gdstab.studies.orbit import show, study
from gdstab.studies.reproduce.study import Row
from gdstab.theory import known

prepare, phases, measure, draw = study.prepare, study.phases, study.measure, show.draw


def shows(_: FigureA2) -> str:
    """What is drawn."""
    return "Orbits at two step sizes in the regions of the paper; red: the stable minima, which vanish in between."


def compare(options: FigureA2, summary: dict, _) -> list[Row]:
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
