"""Figure 1(a) of paper A: the heatmap study at the paper's numbers."""

from gdstab.studies.heatmap import show, study
from gdstab.studies.options.reproduce import FigureA1a
from gdstab.studies.reproduce.study import Row

prepare, phases, measure, draw = study.prepare, study.phases, study.measure, show.draw


def shows(options: FigureA1a) -> str:
    """What is drawn."""
    return (
        f"Updates until gradient descent converges at step size {options.step_size:g}; black: the minima, dashed: the "
        "stable ones, as in the paper; the exact edge of the basin is drawn in addition."
    )


def compare(options: FigureA1a, summary: dict, _) -> list[Row]:
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
