"""Figure 1(b) of paper A: the critical study at the paper's numbers."""

from gdstab.studies import building
from gdstab.studies.critical import show, study
from gdstab.studies.options.reproduce import FigureA1b
from gdstab.studies.reproduce.study import Row
from gdstab.studies.tables import number
from gdstab.theory import known

prepare, phases, measure, draw = study.prepare, study.phases, study.measure, show.draw


def shows(_: FigureA1b) -> str:
    """What is drawn."""
    return (
        "Left, as in the paper: the area of the trapping region over that of the rectangle, and the length of the "
        "stable minima over that of the hyperbola in it, against the step size. Right: thresholds of random minima."
    )


def compare(options: FigureA1b, summary: dict, _) -> list[Row]:
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
