"""Figure 1(a) of paper A: the heatmap study at the paper's numbers."""

from collections.abc import Callable

from gdstab.studies.heatmap import study as heatmap
from gdstab.studies.options.reproduce import FigureA1a
from gdstab.studies.phases import Phase
from gdstab.studies.reproduce.outcome import Reproduction, Row, conclude


def run(options: FigureA1a, *, progress: Callable | None = None) -> Reproduction:
    """Run the study; what does not converge must diverge, as the caption says, and on the exact side of the ellipse."""
    study = heatmap.run(options, progress=progress)
    summary, eta = study.record.summary, options.step_size
    counts, theory = summary["counts"], summary["theory"]
    rest = summary["cells"] - sum(counts[name] for name in ("converged", "diverged", "nonfinite"))
    rows = [
        Row("step size", "0.3", f"{eta:g}"),
        Row("cells that neither converge nor diverge", "0", f"{rest:,}"),
        Row("share of the cells that converge", "-", f"{summary['fractions']['converged']:.6f}"),
    ]
    if theory["exact_share"] is not None:
        rows += [
            Row("the same, from the exact ellipse", "-", f"{theory['exact_share']:.6f}"),
            Row("verdicts against the ellipse", "-", f"{theory['contradictions']}"),
        ]
    saddle = summary["kinds"]["strict_saddle"]
    rows.append(Row("cells of the anti-diagonal, which go to the saddle", "-", f"{saddle:,}"))
    shows = (
        f"Updates until gradient descent converges at step size {eta:g}; black: the minima, dashed: the stable ones, "
        "as in the paper; the exact edge of the basin is drawn in addition."
    )
    return conclude(study.record, study.heatmap is not None, shows, rows)


def phases(options: FigureA1a) -> dict[str, Phase]:
    """Those of the study."""
    return heatmap.phases(options)
