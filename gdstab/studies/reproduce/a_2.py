"""Figure 2 of paper A, both panels: the orbit study at the paper's numbers."""

from collections.abc import Callable

from gdstab.studies.options import Scalar
from gdstab.studies.options.reproduce import FigureA2
from gdstab.studies.orbit import study as orbit
from gdstab.studies.phases import Phase
from gdstab.studies.reproduce.outcome import Reproduction, Row, conclude


def run(options: FigureA2, *, progress: Callable | None = None) -> Reproduction:
    """Run the study; below the critical step size every orbit ends at a stable minimum, above it none converges."""
    study = orbit.run(options, progress=progress)
    loss, orbits = options.loss, study.record.summary["orbits"]
    product = isinstance(loss, Scalar) and loss.depth == 2 and loss.target > 0
    critical = 1 / (2 * loss.scale * loss.target) if product else None
    rows = [] if critical is None else [Row("critical step size", "1", f"{critical:g}")]
    for eta in dict.fromkeys(row["step_size"] for row in orbits):
        ends = [row for row in orbits if row["step_size"] == eta]
        settled = [row for row in ends if row["outcome"] == "converged"]
        printed = "-" if critical is None else "all" if eta < critical else "none"
        rows.append(Row(f"step size {eta:g}: orbits that converge", printed, f"{len(settled)} of {len(ends)}"))
        if critical is not None and settled:
            far = max(sum(x * x for x in row["end"]) for row in settled)
            bound = 1 / (loss.scale * eta)
            rows.append(Row("largest x^2 + y^2 at their ends, stable below", f"{bound:g}", f"{far:.4g}"))
        cycles = sorted({row["period"] for row in ends if row["outcome"] == "cycling"})
        if cycles:
            rows.append(Row("periods of the cycles that the others end on", "-", ", ".join(map(str, cycles))))
    shows = "Orbits at two step sizes in the regions of the paper; red: the stable minima, which vanish in between."
    return conclude(study.record, study.fresh, shows, rows)


def phases(_: FigureA2) -> dict[str, Phase]:
    """Those of the study."""
    return orbit.PHASES
